"""A comparison in one table and one picture: a row for each method, a column for each group of images."""

import math
import statistics
from collections.abc import Sequence

import torch
from torch import Tensor

from flows.inversion.compare import Groups, Result, Row
from flows.page import as_text

EACH, OTHERS = 4, ("cat", "person", "text", "digits", "uniform noise", "checkerboard of 4 px")
"""Pictures of a group in the overview, and those of them that are taken where they are in it."""

Pair = tuple[str, str]


def by_pair(results: Sequence[Result], groups: Groups) -> dict[Pair, dict[str, Result]]:
    """(model, inverter) to column to result, of the pairs that are possible.

    A column is a group of images, or `generated`: each model's own.
    """
    found: dict[Pair, dict[str, Result]] = {}
    for result in results:
        if not result.row.note:
            name = result.row.group
            column = name if groups[name].only is None else "generated"
            found.setdefault((result.row.model, result.row.inverter), {})[column] = result
    return found


def summary(results: Sequence[Result], groups: Groups, network: str) -> str:
    """Markdown: median PSNR by group; the rest over all groups.

    Args:
        results: of `compare`.
        groups: that it took.
        network: of the perceptual distance.
    """
    pairs = by_pair(results, groups)
    columns = list(dict.fromkeys(column for found in pairs.values() for column in found))
    failed = any(result.row.failed > 0 for result in results)
    head = [
        "model", "inverter", *(f"{column}, dB" for column in columns), "bit-exact",
        f"distance ({network})", "seconds / image", "worst start", "edit undone, dB",
        *(["diverged"] if failed else []),
    ]  # fmt: skip
    lines = [head, ["---", "---", *["--:"] * (len(head) - 2)]]
    for (model, inverter), found in pairs.items():
        rows = [result.row for result in found.values()]
        first = rows[0]
        lines.append([
            model, inverter,
            *(decibels(found[column].row.psnr) if column in found else "–" for column in columns),
            f"{100 * over_all(rows, 'bit_exact'):.0f} %", as_text(over_all(rows, "perceptual")),
            f"{over_all(rows, 'seconds'):.2g}",
            f"+ {100 * over_all(rows, 'spread'):.0f} %" if first.starts > 1 else "–",
            decibels(middle([row.undone for row in rows])),
            *([f"{100 * over_all(rows, 'failed'):.0f} %"] if failed else []),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


def middle(values: Sequence[float]) -> float:
    """The median of what is a number."""
    known = [value for value in values if not math.isnan(value)]
    return statistics.median(known) if known else math.nan


def over_all(rows: Sequence[Row], name: str) -> float:
    """A column's mean over all images."""
    return sum(getattr(row, name) * row.images for row in rows) / sum(row.images for row in rows)


def decibels(value: float) -> str:
    """One digit after the point, where it is finite."""
    return f"{value:.1f}" if math.isfinite(value) else as_text(value)


def overview(results: Sequence[Result], groups: Groups) -> list[tuple[str, Tensor]]:
    """Labelled rows of a few pictures of every group that all models have: the input, then each method."""
    shown = {name: positions(name, groups) for name, group in groups.items() if group.only is None}
    rows = [("input", torch.cat([groups[name].images[at] for name, at in shown.items()]))] if shown else []
    for (model, inverter), found in by_pair(results, groups).items():
        if shown and found.keys() >= shown.keys():
            parts = [found[name].reconstruction[at] for name, at in shown.items()]
            rows.append((f"{model}, {inverter}", torch.cat(parts)))
    return rows


def positions(name: str, groups: Groups) -> list[int]:
    """Which pictures of a group the overview shows: the telling ones, else the first."""
    names = [source.name for source in groups[name].sources]
    telling = [names.index(each) for each in OTHERS if each in names]
    return telling or list(range(min(EACH, len(names))))
