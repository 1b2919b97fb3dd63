"""Methods, spaces and models side by side, for each factor: from what `flows steer score` measured."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from flows.page import as_text, cells, numbers, table, write_page
from flows.steering.evaluate import own_score

HEAD = (
    "factor", "model", "space", "method", "effect", "monotone", "changes most besides",
    "relative to the effect", "others kept", "reach", "KID at +α", "R² of re-render",
)  # fmt: skip
WEAK = 0.5
"""Effect in spreads below which a direction does not steer, and stands after all that do."""


@dataclass(frozen=True)
class Entry:
    """One direction of one model, as it was scored; attributes as in `steering.report.Scored.as_dict`."""

    factor: str
    model: str
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

    def order(self) -> tuple[str, bool, float]:
        """By factor; what steers at all first, and of these what leaks least."""
        return self.factor, self.effect < WEAK, self.leakage

    def row(self) -> list[str]:
        """Columns of `HEAD`."""
        return [
            self.factor, self.model, self.space, self.method, as_text(self.effect), as_text(self.monotone),
            self.worst, as_text(self.leakage), as_text(self.kept), as_text(self.reach),
            as_text(self.distance), as_text(self.faithful),
        ]  # fmt: skip


def read_scores(path: Path) -> list[Entry]:
    """The directions of a scores.json.

    Raises:
        ValueError: there is no such file, or it is none of `flows steer score`.
    """
    if not path.is_file():
        raise ValueError(f"{path} does not exist: expected a scores.json of `flows steer score`")
    try:
        told: dict[str, Any] = json.loads(path.read_text())
        return [
            Entry(
                own_score(name), Path(told["checkpoint"]).name, told["space"],
                each["method"] + (" without …" if " without " in name else ""),
                number(each["effect"]), each["monotone"], each["worst"], number(each["leakage"]),
                number(each["kept"]), number(each["reach"]), number((each["distances"] or [None])[-1]),
                number(each["faithful"]),
            )
            for name, each in told["directions"].items()
        ]  # fmt: skip
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is no scores.json of this version of `flows steer score` ({error})"
        ) from error


def number(value: float | None) -> float:
    """JSON's null is not a number."""
    return float("nan") if value is None else float(value)


def worse_in_z(entries: Sequence[Entry]) -> list[str]:
    """A sentence for every factor and method of a model whose direction in z leaks more than that in w."""
    found = []
    for z in entries:
        for w in entries:
            same = (z.factor, z.model, z.method) == (w.factor, w.model, w.method)
            if same and z.space == "z" and w.space == "w" and z.order() > w.order():
                found.append(
                    f"{z.factor} of {z.model} by {z.method} is worse in z than in w: effect "
                    f"{as_text(z.effect)} and {as_text(w.effect)}, leakage {as_text(z.leakage)} and "
                    f"{as_text(w.leakage)}"
                )
    return found


def write_ranking(out: Path, entries: Sequence[Entry]) -> list[str]:
    """index.html with leakage.png, and all entries as a table; returns the names of the files."""
    lines = [
        cells(row[:4]) + numbers(row[4:6]) + cells(row[6:7]) + numbers(row[7:])
        for row in (each.row() for each in entries)
    ]
    notes = "".join(f"<p>{text}</p>" for text in worse_in_z(entries))
    return write_page(
        out, "Directions, ranked", {"leakage": leakage_map(entries)}, after=notes + table(HEAD, lines)
    )


def leakage_map(entries: Sequence[Entry]) -> Figure:
    """Model, space and method × factor: what else changes, relative to the effect; grey where none steers."""
    rows = list(dict.fromkeys(f"{each.model}, {each.space}, {each.method}" for each in entries))
    factors = list(dict.fromkeys(each.factor for each in entries))
    values = np.full((len(rows), len(factors)), np.nan)
    for each in entries:
        if each.effect >= WEAK:
            place = rows.index(f"{each.model}, {each.space}, {each.method}"), factors.index(each.factor)
            values[place] = np.nanmin([values[place], each.leakage])
    figure = Figure(figsize=(4 + 0.6 * len(factors), 1.8 + 0.3 * len(rows)), layout="constrained")
    axes = figure.subplots()
    axes.set_facecolor("0.9")
    image = axes.imshow(values, cmap="viridis_r", vmin=0, vmax=1, aspect="auto")
    for i, j in np.ndindex(*values.shape):
        if np.isfinite(values[i, j]):
            tone = "w" if values[i, j] > 0.5 else "k"
            axes.text(j, i, f"{values[i, j]:.2f}", ha="center", va="center", fontsize=7, color=tone)
    axes.set_xticks(range(len(factors)), factors, rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_title("largest change of another attribute, relative to the effect", fontsize=9)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
