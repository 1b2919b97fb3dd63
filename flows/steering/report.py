"""Report of `flows steer score`: a page with the matrix of changes as a heat map, responses and strips."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from flows.display.drawing import Sheet, new_figure
from flows.display.formats import Format
from flows.display.notebook import ShownInNotebooks
from flows.display.page import as_interval, as_text, heat_map, write_page
from flows.display.table import Table
from flows.steering.evaluate import Rescoring, monotonicity, own_score
from flows.steering.quality import Quality

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # imported only where a figure is made

    from flows.display.drawing import Drawn

SCORES_VERSION = 1
"""Format version of scores.json."""
COLUMNS = 40
"""Maximum number of columns of the heat map: scores that directions are named after, then others."""


@dataclass(frozen=True, kw_only=True)
class Scored(ShownInNotebooks):
    """Measurements of some directions.

    Attributes:
        matrix: Changes of scores.
        alphas: Numbers of sigmas of responses and strips.
        responses: Direction to mean scores (number of alphas, number of scores).
        qualities: Direction to its quality.
        methods: Direction to the method that found it.
        strips: Name and uint8 images (number of alphas, C, H, W) of each strip.
        moved: Space, number and kind of the codes that were moved, and number of images for KID.
        notes: Sentences for the terminal.
    """

    matrix: Rescoring
    alphas: list[float]
    responses: dict[str, Tensor]
    qualities: dict[str, Quality]
    methods: dict[str, str]
    strips: list[tuple[str, Tensor]]
    moved: dict[str, Any]
    notes: tuple[str, ...] = ()

    def save(self, out: Path, title: str = "Directions", formats: Sequence[Format] = ()) -> list[str]:
        """Write index.html with matrix.png, responses.png and strips.png; returns the names of the files.

        Args:
            out: Output folder.
            title: Title of the page.
            formats: Additional formats; see `flows.display.formats.Formats`.
        """
        head = [f"{alpha:+.2g}" for alpha in self.alphas]
        sheets: dict[str, Drawn] = {
            "matrix": matrix_map(self.matrix),
            "responses": response_curves(self),
            "strips": Sheet(self.strips, len(head), head=head),
        }
        (table,) = self.tables()
        return write_page(out, title, sheets, table.html(), tables={"directions": table}, formats=formats)

    def tables(self) -> list[Table]:
        """One table, a row for each direction."""
        return [Table(HEAD, self.rows())]

    def monotone(self, direction: str) -> float:
        """Share of the steps of the direction's own score that have the sign of the total change."""
        return monotonicity(self.responses[direction][:, self.matrix.column(own_score(direction))])

    def rows(self) -> list[list[str]]:
        """Rows of the table with the columns of `HEAD`."""
        rows = []
        for i, name in enumerate(self.matrix.directions):
            own, worst = self.matrix.column(own_score(name)), self.matrix.worst(name)
            leakage = self.matrix.worst_leakage(name)
            low, high = float(self.matrix.low[i, own]), float(self.matrix.high[i, own])
            quality = self.qualities[name]
            distance = quality.distances[-1] if quality.distances else float("nan")
            faithful = float("nan") if quality.faithful is None else quality.faithful
            rows.append(
                [
                    name,
                    as_text(self.matrix.own(name)),
                    as_interval(low, high, ".2f"),
                    as_text(self.monotone(name)),
                    worst.name if worst else "–",
                    as_text(leakage),
                    as_text(self.matrix.kept[i]),
                    as_text(quality.reach),
                    as_text(distance),
                    as_text(faithful),
                ]
            )
        return rows

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        matrix = self.matrix
        return {
            **self.moved,
            "scores_version": SCORES_VERSION,
            "alpha": matrix.alpha,
            "scores": [score.name for score in matrix.scores],
            "directions": {
                name: {
                    "signed": matrix.signed[i].tolist(),
                    "clipped": matrix.clipped[i].tolist(),
                    "low": matrix.low[i].tolist(),
                    "high": matrix.high[i].tolist(),
                    "monotone": self.monotone(name),
                    "method": self.methods[name],
                    "effect": matrix.own(name),
                    "leakage": matrix.worst_leakage(name),
                    "worst": worst.name if (worst := matrix.worst(name)) else "–",
                    "kept": matrix.kept[i],
                    **self.qualities[name].as_dict(),
                }
                for i, name in enumerate(matrix.directions)
            },
        }


HEAD = [
    "direction", "effect", "95 %", "monotone", "most affected other score", "leakage", "others kept",
    "reach", "KID at +α", "R² of re-render",
]  # fmt: skip
"""Columns of the table of directions."""


def matrix_map(found: Rescoring) -> "Figure":
    """Heat map of signed changes, in std of the scores; pale where the interval contains 0."""
    wanted = [found.column(own_score(name)) for name in found.directions] + list(range(len(found.scores)))
    columns = list(dict.fromkeys(wanted))[:COLUMNS]
    return heat_map(
        found.signed[:, columns],
        found.directions,
        [found.scores[i].name for i in columns],
        f"change of scores by {found.alpha:g} σ, in std",
        digits=1,
        certain=(found.low[:, columns] > 0) | (found.high[:, columns] < 0),
    )


def response_curves(scored: Scored) -> "Figure":
    """Curves of each direction's own score against α, in front of all others; changes from α = 0, in std."""
    columns = min(5, len(scored.responses))
    rows = -(-len(scored.responses) // columns)
    figure = new_figure(2.6 * columns, 2.2 * rows)
    zero = int(np.argmin(np.abs(np.array(scored.alphas))))
    panels = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, (name, values) in zip(panels, scored.responses.items(), strict=False):
        relative = (values - values[zero]) / scored.matrix.std
        axes.plot(scored.alphas, relative.numpy(), color="0.8", linewidth=0.8)
        own = relative[:, scored.matrix.column(own_score(name))]
        axes.plot(scored.alphas, own.numpy(), color="C3", linewidth=2)
        axes.axhline(0, color="0.5", linewidth=0.5)
        axes.set_title(name, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in panels[len(scored.responses) :]:
        axes.set_visible(False)
    figure.supxlabel("σ", fontsize=8)
    figure.supylabel("change, in std", fontsize=8)
    return figure
