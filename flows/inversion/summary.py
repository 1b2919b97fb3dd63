"""Summary of a comparison: one table and one picture, a row per method, a column per group of images."""

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.display.page import as_fixed, as_interval, as_text
from flows.display.table import Table
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
            name = result.row.group
            column = name if groups[name].only is None else "generated"
            pairs.setdefault((result.row.model, result.row.inverter), {})[column] = result
    return pairs


def summary(results: Sequence[Result], groups: Groups, distances: Distances) -> str:
    """Return Markdown tables: of the inversions, and of their edits, if there are any.

    The former has the median PSNR per group with its 95 % interval, and the other figures over all groups.

    Args:
        results: Results of `compare`.
        groups: Groups that were compared, by name.
        distances: Names of the distances.
    """
    pairs = by_pair(results, groups)
    columns = list(dict.fromkeys(column for by_column in pairs.values() for column in by_column))
    failed = any(result.row.failed > 0 for result in results)
    head = [
        "model",
        "inverter",
        *(f"{column}, dB" for column in columns),
        "bit-exact",
        f"distance ({distances.measured})",
        f"seconds / image (loss: {distances.loss})",
        "worst restart",
        "edit undone, dB",
        *(["diverged"] if failed else []),
    ]
    lines = []
    for (model, inverter), by_column in pairs.items():
        rows = [result.row for result in by_column.values()]
        first = rows[0]
        lines.append(
            [
                model,
                inverter,
                *(psnr_of(by_column[column].row) if column in by_column else "–" for column in columns),
                f"{100 * over_all(rows, 'bit_exact'):.0f} %",
                as_text(over_all(rows, "perceptual")),
                f"{over_all(rows, 'seconds'):.2g}",
                f"+ {100 * over_all(rows, 'restart_gap'):.0f} %" if first.starts > 1 else "–",
                as_fixed(median([row.undone for row in rows]), ".1f"),
                *([f"{100 * over_all(rows, 'failed'):.0f} %"] if failed else []),
            ]
        )
    edits = edit_lines(results)
    return Table(head, lines).markdown() + (f"\n{Table(EDIT_HEAD, edits).markdown()}" if edits else "")


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
