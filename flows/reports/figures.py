"""Figures of a run: curves over the images shown, and reconstructions of out-of-distribution images."""

import math
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.extras import optional
from flows.display.drawing import new_figure, save_picture
from flows.metrics.roundtrip import round_trip
from flows.models.base import LatentModel

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # imported only where a figure is made

Lines = list[dict[str, float]]


def draw_curves(metrics: Lines, bins: int, path: Path) -> None:
    """Plot bits/dim of training and validation and the round-trip error over images shown, as a PNG."""
    figure = new_figure(10, 3.6)
    likelihood, trip = figure.subplots(1, 2)
    _plot(
        likelihood, metrics, {"likelihood/bits_per_dim": "training", "validation/bits_per_dim": "validation"}
    )
    likelihood.set_ylabel("bits/dim")
    validated = _finite(metrics, "validation/bits_per_dim")
    if len(validated) > 2:
        # The first steps start near log2(bins) and would flatten the rest of the curve.
        trained = _finite(metrics, "likelihood/bits_per_dim")
        low, high = min(validated + trained), sorted(validated)[-2]
        likelihood.set_ylim(low - 0.15 * (high - low) - 0.02, high + 0.5 * (high - low) + 0.05)
    _plot(trip, metrics, {"roundtrip/data": "held-out images", "roundtrip/noise": "uniform noise"})
    trip.axhline(0.5 / bins, color="0.6", linewidth=1, linestyle="--")
    trip.annotate(
        "half a grey level",
        (0.02, 0.5 / bins),
        xycoords=("axes fraction", "data"),
        va="bottom",
        color="0.4",
        fontsize=8,
    )
    trip.set_yscale("log")
    trip.set_ylabel("largest |x − decode(encode(x))|")
    for axes in (likelihood, trip):
        _finish(axes)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    save_picture(figure, path)


def draw_lines(metrics: Lines, panels: dict[str, str], path: Path) -> None:
    """Plot values of the log over images shown, one panel per value that was logged, as a PNG.

    Args:
        metrics: Lines of the log.
        panels: Name of a logged value to the label of its axis.
        path: Path of the PNG file.
    """
    logged = {name: label for name, label in panels.items() if any(name in line for line in metrics)}
    figure = new_figure(1 + 3.6 * max(1, len(logged)), 3.2)
    for axes, (name, label) in zip(
        figure.subplots(1, max(1, len(logged)), squeeze=False).flat, logged.items(), strict=False
    ):
        _plot(axes, metrics, {name: label})
        _finish(axes)
        axes.set_ylabel(label)
    save_picture(figure, path)


def draw_bars(figures: dict[str, dict[str, float]], path: Path) -> None:
    """Plot bars from 0 to 1, one panel per figure, as a PNG.

    Args:
        figures: Name of a figure, such as accuracy, to name of an attribute or class to value.
        path: Path of the PNG file.
    """
    longest = max(len(values) for values in figures.values())
    figure = new_figure(4.2 * len(figures), 0.8 + 0.19 * longest)
    for axes, (name, values) in zip(
        figure.subplots(1, len(figures), squeeze=False).flat, figures.items(), strict=True
    ):
        ordered = sorted(values.items(), key=lambda pair: pair[1])
        bars = axes.barh([key for key, _ in ordered], [max(0.0, value) for _, value in ordered], height=0.7)
        axes.bar_label(bars, [f"{value:.2f}" for _, value in ordered], padding=2, fontsize=7)
        axes.set_xlim(0, 1.08)
        axes.set_xlabel(name)
        axes.tick_params(axis="y", labelsize=8)
        axes.margins(y=0.01)
        axes.spines[["top", "right"]].set_visible(False)
    save_picture(figure, path)


def _finite(metrics: Lines, name: str) -> list[float]:
    """Values of a name that are finite; those of an evaluation may not be."""
    return [line[name] for line in metrics if math.isfinite(line.get(name, math.nan))]


def _finish(axes: "Axes") -> None:
    ticker = optional("matplotlib.ticker")
    axes.set_xlabel("images shown")
    axes.xaxis.set_major_locator(ticker.MaxNLocator(6))
    axes.xaxis.set_major_formatter(ticker.EngFormatter(sep=""))
    axes.spines[["top", "right"]].set_visible(False)


def _plot(axes: "Axes", metrics: Lines, names: dict[str, str]) -> None:
    for name, label in names.items():
        points = [(line["images"], line[name]) for line in metrics if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), label=label, linewidth=1.5)


def draw_round_trip(model: LatentModel, groups: dict[str, Tensor], path: Path) -> None:
    """Plot one image of every group above its reconstruction in fp32, as a picture in the suffix's format."""
    names = list(groups)
    originals = torch.stack([pictures[0] for pictures in groups.values()])
    trip = round_trip(model, originals, per_level=False)
    columns = 12
    bands = -(-len(names) // columns)
    figure = new_figure(columns, 2.75 * bands)
    axes = figure.subplots(2 * bands, columns, squeeze=False)
    for panel in axes.flat:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.set_visible(False)
    for i, name in enumerate(names):
        band, column = divmod(i, columns)
        for row, picture in enumerate((originals[i], trip.reconstruction[i].cpu())):
            panel = axes[2 * band + row, column]
            panel.set_visible(True)
            panel.imshow(pixels.to_pillow(picture), cmap="gray", vmin=0, vmax=255)
        axes[2 * band, column].set_title(name.replace(" ", "\n", 1), fontsize=7)
        error = float(trip.error[i])
        verdict = "bit-exact" if trip.bit_exact[i] else "differs"
        axes[2 * band + 1, column].set_title(f"{verdict}\n{error:.0e}", fontsize=7)
    save_picture(figure, path)
