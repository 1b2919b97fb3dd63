"""Methods, spaces and models side by side, for each factor: from what `flows steer score` measured."""

import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from flows.errors import UserError
from flows.page import as_text, cells, heat_map, numbers, table, write_page
from flows.steering.evaluate import own_score

HEAD = (
    "direction", "model", "of", "space", "method", "effect", "monotone", "changes most besides",
    "relative to the effect", "others kept", "reach", "KID at +α", "R² of re-render",
)  # fmt: skip
SAME = ("direction", "model", "of", "method")
"""What two entries have in common that are of two spaces of one model."""
CLEARLY = 0.05
"""By how much leakage has to differ to be said to."""
WEAK = 0.5
"""Effect in spreads below which a direction does not steer, and stands after all that do."""


@dataclass(frozen=True)
class Entry:
    """One direction of one model, as it was scored; attributes as in `steering.report.Scored.as_dict`.

    `model` is the checkpoint as it was given, `of` what was moved and by whom it was judged, `direction` its
    whole name: what differs in one of these is compared with nothing.
    """

    factor: str
    direction: str
    model: str
    of: str
    space: str
    method: str
    effect: float
    monotone: float
    worst: str
    leakage: float
    kept: float
    reach: float
    distance: float
    faithful: float

    @property
    def told(self) -> str:
        """Model, space and method in short."""
        rest = self.direction.removeprefix(self.factor)
        return f"{Path(self.model).name}, {self.of}, {self.space}, {self.method}{rest}"

    def order(self) -> tuple[str, bool, float]:
        """By factor; what steers at all first, and of these what leaks least."""
        return self.factor, self.effect < WEAK, self.leakage

    def row(self) -> list[str]:
        """Columns of `HEAD`."""
        return [
            self.direction, Path(self.model).name, self.of, self.space, self.method, as_text(self.effect),
            as_text(self.monotone),
            self.worst, as_text(self.leakage), as_text(self.kept), as_text(self.reach),
            as_text(self.distance), as_text(self.faithful),
        ]  # fmt: skip


def read_scores(path: Path) -> list[Entry]:
    """The directions of a scores.json.

    Raises:
        ValueError: there is no such file, or it is none of `flows steer score`.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a scores.json of `flows steer score`")
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        return [
            Entry(
                own_score(name), name, told["checkpoint"], told["of"], told["space"], each["method"],
                number(each["effect"]), each["monotone"], each["worst"],
                math.inf if each["leakage"] is None else float(each["leakage"]),
                number(each["kept"]), number(each["reach"]), number((each["distances"] or [None])[-1]),
                number(each["faithful"]),
            )
            for name, each in told["directions"].items()
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise UserError(
            f"{path} is no scores.json of this version of `flows steer score` ({error})"
        ) from error


def number(value: float | None) -> float:
    """JSON's null is not a number."""
    return float("nan") if value is None else float(value)


def worse_in_z(entries: Sequence[Entry]) -> list[str]:
    """A sentence for every direction of a model that is weak in z and not in w, or leaks clearly more."""
    found = []
    for z in entries:
        for w in entries:
            same = all(getattr(z, name) == getattr(w, name) for name in SAME)
            weak = z.effect < WEAK <= w.effect
            leaks = min(z.effect, w.effect) >= WEAK and z.leakage > w.leakage + CLEARLY
            if same and z.space == "z" and w.space == "w" and (weak or leaks):
                found.append(
                    f"{z.direction} of {Path(z.model).name} by {z.method} is worse in z than in w: effect "
                    f"{as_text(z.effect)} and {as_text(w.effect)}, leakage {as_text(z.leakage)} and "
                    f"{as_text(w.leakage)}"
                )
    return found


def write_ranking(out: Path, entries: Sequence[Entry]) -> list[str]:
    """index.html with leakage.png, and all entries as a table; returns the names of the files."""
    lines = [
        cells(row[:5]) + numbers(row[5:7]) + cells(row[7:8]) + numbers(row[8:])
        for row in (each.row() for each in entries)
    ]
    notes = "".join(f"<p>{html.escape(text)}</p>" for text in worse_in_z(entries))
    return write_page(
        out, "Directions, ranked", {"leakage": leakage_map(entries)}, after=notes + table(HEAD, lines)
    )


def leakage_map(entries: Sequence[Entry]) -> Figure:
    """Model, space and method × factor: what else changes, relative to the effect; grey where none steers."""
    keys = [(each.model, each.told) for each in entries]
    rows = list(dict.fromkeys(keys))
    factors = list(dict.fromkeys(each.factor for each in entries))
    values = torch.full((len(rows), len(factors)), float("nan"))
    for key, each in zip(keys, entries, strict=True):
        if each.effect >= WEAK:
            values[rows.index(key), factors.index(each.factor)] = each.leakage
    told = "largest change of another attribute, relative to the effect"
    return heat_map(values, [name for _, name in rows], factors, told, share=True)
