"""Tables and one picture of a comparison: a row per method, a column per group of images."""

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.display.page import as_fixed, as_interval, as_text
from flows.display.table import Noted, Table, without_figures
from flows.inversion.comparison import Groups, Result, Row

EACH, OTHERS = 4, ("cat", "person", "text", "digits", "uniform noise", "checkerboard of 4 px")
"""Number of images per group in the overview, and names of the images that are preferred."""

Pair = tuple[str, str]


@dataclass(frozen=True)
class Distances:
    """Names of distances, for the heads of tables.

    Attributes:
        measured: Network of the perceptual distance that is measured.
        loss: Loss that the searches minimise; see `Distance.text`.
    """

    measured: str
    loss: str = "pixels"


def by_pair(results: Sequence[Result], groups: Groups) -> dict[Pair, dict[str, Result]]:
    """Return (model, inverter) to column to result, for the pairs with figures.

    A column is a group of images, or `generated` for the images that each model generated itself.
    """
    pairs: dict[Pair, dict[str, Result]] = {}
    for result in results:
        if not result.row.note:
            column = column_of(result.row.group, groups)
            pairs.setdefault((result.row.model, result.row.inverter), {})[column] = result
    return pairs


def column_of(group: str, groups: Groups) -> str:
    """Name of the column of a group; images that each model generated itself share one."""
    return group if groups[group].only is None else "generated"


def summary_table(results: Sequence[Result], groups: Groups, distances: Distances) -> Table:
    """Table of the inversions, a row for each model and inverter.

    It has the median PSNR per group with its 95 % interval, and the other figures over all groups. A pair
    without figures has the reason as a note.

    Args:
        results: Results of `compare`.
        groups: Groups that were compared, by name.
        distances: Names of the distances.
    """
    by_name: dict[Pair, dict[str, Row]] = {}
    for row in (result.row for result in results):
        by_name.setdefault((row.model, row.inverter), {})[column_of(row.group, groups)] = row
    columns = list(dict.fromkeys(column for rows in by_name.values() for column in rows))
    failed = any(result.row.failed > 0 for result in results)
    head = [
        "model",
        "inverter",
        *(f"{column}, dB" for column in columns),
        "bit-exact",
        f"distance ({distances.measured})",
        Noted("seconds / image", f"searches minimise {distances.loss}"),
        "worst restart",
        "edit undone, dB",
        *(["diverged"] if failed else []),
    ]
    return Table(head, [[*pair, *cells(rows, columns, failed)] for pair, rows in by_name.items()])


def cells(rows: Mapping[str, Row], columns: Sequence[str], failed: bool) -> list[str]:
    """Cells of a model and inverter: the PSNR of each column, then the other figures.

    Args:
        rows: Rows of the pair by column.
        columns: Names of all columns.
        failed: Whether there is a column for the share of restarts that diverged.
    """
    known = [row for row in rows.values() if not row.note]
    if not known and len({row.note for row in rows.values()}) == 1:
        return without_figures(next(iter(rows.values())).reason, len(columns) + 5 + failed)
    quality = [psnr_cell(rows[column]) if column in rows else "–" for column in columns]
    if not known:
        return [*quality, *["–"] * (5 + failed)]
    return [
        *quality,
        f"{100 * over_all(known, 'bit_exact'):.0f} %",
        as_text(over_all(known, "perceptual")),
        f"{over_all(known, 'seconds'):.2g}",
        f"{100 * over_all(known, 'restart_gap'):+.0f} %" if known[0].starts > 1 else "–",
        as_fixed(median([row.undone for row in known]), ".1f"),
        *([f"{100 * over_all(known, 'failed'):.0f} %"] if failed else []),
    ]


def psnr_cell(row: Row) -> str:
    """Median PSNR of a row with its interval; what is missing has a note."""
    return Noted("–" if row.note else psnr_of(row), row.reason)


SHOWN = {
    "psnr": "PSNR, dB", "ssim": "SSIM", "perceptual": "distance", "bit_exact": "bit-exact, share",
    "seconds": "seconds / image", "steps": "steps", "undone": "edit undone, dB",
}  # fmt: skip
"""Columns of the table of groups, with their names in a paper."""
EDITED = {"edited": "edited, dB", "back": "and back, dB"}
"""Further columns, if edits were compared with true ones."""


def groups_table(results: Sequence[Result], in_words: bool = False) -> Table:
    """Table with a row for each pair and group; groups without figures for one reason share a row.

    Args:
        results: Results of `compare`.
        in_words: Whether the columns have their names with units, instead of those in JSON.
    """
    rows = [result.row for result in results]
    names = {**SHOWN, **(EDITED if any(not math.isnan(row.edited) for row in rows) else {})}
    lines: list[list[str]] = []
    for (model, inverter, note), some in itertools.groupby(
        rows, lambda row: (row.model, row.inverter, row.note)
    ):
        alike = list(some)
        if note:
            together = ", ".join(row.group for row in alike)
            lines.append([model, inverter, together, *without_figures(alike[0].reason, len(names))])
            continue
        lines += [[model, inverter, row.group, *noted_figures(row, list(names))] for row in alike]
    return Table(["model", "inverter", "images", *(names.values() if in_words else names)], lines)


def noted_figures(row: Row, names: Sequence[str]) -> list[str]:
    """Figures of a row as text; the first has the note of the row, and without figures there is only that."""
    if row.note:
        return without_figures(row.reason, len(names))
    first, *others = (as_text(getattr(row, name)) for name in names)
    return [Noted(first, row.reason), *others]


def edits_table(results: Sequence[Result]) -> Table:
    """Table of the edits that were compared with true ones."""
    return Table(EDIT_HEAD, edit_lines(results))


def with_interval(middle: float, low: float, high: float) -> str:
    """Median in dB, with its 95 % interval if that is known and not a point."""
    text = as_fixed(middle, ".1f")
    return text if math.isnan(low) or low == high else f"{text} ({as_interval(low, high, '.1f')})"


def psnr_of(row: Row) -> str:
    """Median PSNR of a row with its interval."""
    return with_interval(row.psnr, row.psnr_low, row.psnr_high)


EDIT_HEAD = (
    "model", "inverter", "direction", "images", "the image itself, dB", "edited, dB", "reached", "leakage",
    "and back, dB",
)  # fmt: skip
"""Columns of the table of edits."""


def edit_lines(results: Sequence[Result]) -> list[list[str]]:
    """Rows of the table of edits: one per model, inverter and direction."""
    return [
        [
            result.row.model,
            result.row.inverter,
            each.direction,
            str(each.images),
            as_fixed(each.unedited, ".1f"),
            with_interval(each.psnr, each.low, each.high),
            as_fixed(100 * each.reached, ".0f", " %"),
            as_fixed(each.leakage, ".2f"),
            as_fixed(each.back, ".1f"),
        ]
        for result in results
        for each in (edit.figures for edit in result.edits)
    ]


def median(values: Sequence[float]) -> float:
    """Median of the values that are not NaN; NaN if there are none."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def over_all(rows: Sequence[Row], name: str) -> float:
    """Mean of a column over all images."""
    return sum(getattr(row, name) * row.images for row in rows) / sum(row.images for row in rows)


def overview(results: Sequence[Result], groups: Groups) -> list[tuple[str, Tensor]]:
    """Return labelled rows of some images of the groups common to all models: input, then each method."""
    shown = {name: positions(name, groups) for name, group in groups.items() if group.only is None}
    rows = [("input", torch.cat([groups[name].images[at] for name, at in shown.items()]))] if shown else []
    for (model, inverter), by_column in by_pair(results, groups).items():
        if shown and by_column.keys() >= shown.keys():
            parts = [by_column[name].reconstruction[at] for name, at in shown.items()]
            rows.append((f"{model}, {inverter}", torch.cat(parts)))
    return rows


def positions(name: str, groups: Groups) -> list[int]:
    """Return the indices of the images that the overview shows: the preferred ones, or else the first."""
    names = [source.name for source in groups[name].sources]
    preferred = [names.index(name) for name in OTHERS if name in names]
    return preferred or list(range(min(EACH, len(names))))
