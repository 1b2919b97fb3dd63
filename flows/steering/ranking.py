"""Comparison of methods, spaces and models for each factor, from results of `flows steer score`."""

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from flows.core.schema import parse, read_json
from flows.display.formats import Format
from flows.display.page import as_text, heat_map, write_page
from flows.display.table import Table
from flows.errors import UserError
from flows.steering.evaluate import own_score
from flows.steering.report import SCORES_VERSION

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # imported only where a figure is made

HEAD = (
    "direction", "model", "codes", "space", "method", "effect", "monotone", "most affected other score",
    "leakage", "others kept", "reach", "KID at +α", "R² of re-render",
)  # fmt: skip
SAME = ("direction", "model", "of", "method")
"""Attributes that are equal for two entries of different spaces of one model."""
CLEARLY = 0.05
"""Minimum difference of two leakages that is reported."""
WEAK = 0.5
"""Effect, in std of the score, below which a direction does not steer; such directions are sorted last."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Scores of one direction of one model.

    Attributes:
        factor: Name of the score that the direction is named after.
        direction: Full name of the direction.
        model: Checkpoint of the model, as given.
        of: Kind of the codes that were moved, "samples" or "test images".
        space: Latent space.
        method: Method that found the direction.
        effect: Change of the own score, in std of the score.
        monotone: Share of the steps of the response that have the sign of the total change.
        worst: Name of the other score that changes most.
        leakage: |change of `worst`| / |change of the own score|; infinite if the latter is about 0.
        kept: Share of the other attributes' probabilities that stay on the same side of ½.
        reach: Range of the response, relative to the central 90 % of real scores.
        distance: KID between moved samples at +α and real images.
        faithful: R² between moved images and the re-rendered true scenes.
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
    def label(self) -> str:
        """Short description: model, codes, space and method."""
        rest = self.direction.removeprefix(self.factor)
        return f"{Path(self.model).name}, {self.of}, {self.space}, {self.method}{rest}"

    def order(self) -> tuple[str, bool, float]:
        """Sort key: factor, directions that steer before those that do not, then leakage."""
        return self.factor, self.effect < WEAK, self.leakage

    def row(self) -> list[str]:
        """Columns of `HEAD`."""
        return [
            self.direction,
            Path(self.model).name,
            self.of,
            self.space,
            self.method,
            as_text(self.effect),
            as_text(self.monotone),
            self.worst,
            as_text(self.leakage),
            as_text(self.kept),
            as_text(self.reach),
            as_text(self.distance),
            as_text(self.faithful),
        ]


def read_scores(path: Path) -> list[Entry]:
    """Read the directions of a scores.json.

    Raises:
        UserError: There is no such file, or `flows steer score` of this version did not write it.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: expected a scores.json of `flows steer score`")
    try:
        stored = parse(dict[str, Any], read_json(path.read_bytes()))
        check_version(stored)
        directions = parse(dict[str, dict[str, Any]], stored.get("directions"), "directions")
        return [_entry(stored, name, each) for name, each in directions.items()]
    except UserError as error:
        raise UserError(f"{path} is not a scores.json of `flows steer score`: {error}") from error


def check_version(stored: Mapping[str, Any]) -> None:
    """Raise UserError unless this release reads the format; files of before have no version."""
    version = stored.get("scores_version", SCORES_VERSION)
    if version != SCORES_VERSION:
        raise UserError(f"it has scores version {version}, this release of flows reads {SCORES_VERSION}")


def _entry(stored: Mapping[str, Any], name: str, direction: Mapping[str, Any]) -> Entry:
    """Entry of a direction; null, which JSON has in place of infinity and NaN, is either of them."""

    def of(values: Mapping[str, Any], key: str, kind: Any, where: str = "") -> Any:
        return parse(kind, values.get(key), where + key)

    def own(key: str, kind: Any = str) -> Any:
        return of(direction, key, kind, f"directions.{name}.")

    def number(key: str, null: float = math.nan) -> float:
        value = own(key, float | None)
        return null if value is None else float(value)

    distances = own("distances", list[float | None]) or [None]
    return Entry(
        factor=own_score(name),
        direction=name,
        model=of(stored, "checkpoint", str),
        of=of(stored, "of", str),
        space=of(stored, "space", str),
        method=own("method"),
        effect=number("effect"),
        monotone=number("monotone"),
        worst=own("worst"),
        leakage=number("leakage", math.inf),
        kept=number("kept"),
        reach=number("reach"),
        distance=math.nan if distances[-1] is None else distances[-1],
        faithful=number("faithful"),
    )


def worse_in_z(entries: Sequence[Entry]) -> list[str]:
    """One sentence per direction of a model that is weak in z but not in w, or leaks clearly more in z."""
    sentences = []
    for z in entries:
        for w in entries:
            same = all(getattr(z, name) == getattr(w, name) for name in SAME)
            weak = z.effect < WEAK <= w.effect
            leaks = min(z.effect, w.effect) >= WEAK and z.leakage > w.leakage + CLEARLY
            if same and z.space == "z" and w.space == "w" and (weak or leaks):
                sentences.append(
                    f"{z.direction} of {Path(z.model).name} by {z.method} is worse in z than in w: effect "
                    f"{as_text(z.effect)} and {as_text(w.effect)}, leakage {as_text(z.leakage)} and "
                    f"{as_text(w.leakage)}"
                )
    return sentences


def ranking_table(entries: Sequence[Entry]) -> Table:
    """Table with a row for each entry."""
    return Table(HEAD, [each.row() for each in entries])


def write_ranking(out: Path, entries: Sequence[Entry], formats: Sequence[Format] = ()) -> list[str]:
    """Write index.html with leakage.png and a table of all entries; returns the names of the files."""
    table = ranking_table(entries)
    notes = "".join(f"<p>{html.escape(text)}</p>" for text in worse_in_z(entries))
    sheets = {"leakage": leakage_map(entries)}
    after, tables = notes + table.html(), {"ranking": table}
    return write_page(out, "Directions, ranked", sheets, after=after, tables=tables, formats=formats)


def leakage_map(entries: Sequence[Entry]) -> "Figure":
    """Heat map of the leakage of model, space and method × factor; grey where no direction steers."""
    keys = [(each.model, each.label) for each in entries]
    rows = list(dict.fromkeys(keys))
    factors = list(dict.fromkeys(each.factor for each in entries))
    values = torch.full((len(rows), len(factors)), float("nan"))
    for key, each in zip(keys, entries, strict=True):
        if each.effect >= WEAK:
            values[rows.index(key), factors.index(each.factor)] = each.leakage
    caption = "largest change of another attribute, relative to the effect"
    return heat_map(values, [name for _, name in rows], factors, caption, share=True)
