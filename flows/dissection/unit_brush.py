"""Brush of the units that generate a class (GANPaint; Bau et al. 2019, arXiv 1811.10597)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flows.dissection.agreement import best_layer, dissect
from flows.dissection.causal import class_means
from flows.dissection.intervention import learned_order
from flows.dissection.paint import Canvas, Stroke, StrokeEdit, places
from flows.dissection.probe import Change
from flows.errors import Unsupported, UserError
from flows.models.base import LatentModel
from flows.semantics.base import Segmenter, column_of_class

__all__ = ["UnitBrush", "find_units"]

UNITS, CODES = 20, 400
"""Default number of units of a brush, and of samples that they are found on."""


@dataclass(frozen=True)
class UnitBrush:
    """Brush that sets units of a layer to their mean activation on a class, or to 0 to erase the class.

    Attributes:
        label: Name of the class.
        layer: Layer of the units.
        units: Channels of the units, about twenty.
        values: (channels,), values of the layer's units for drawing; see `causal.class_means`.
    """

    label: str
    layer: str
    units: tuple[int, ...]
    values: Tensor

    def stroke_edit(self, canvas: Canvas, mask: Tensor, stroke: Stroke, strength: float) -> StrokeEdit:
        """Edit of a stroke; see `paint.Brush`. A strength above 1 scales the values."""
        size = canvas.probe.layers[self.layer].size
        return StrokeEdit([(self.layer, self.change(mask, size, stroke, strength))], mask)

    def change(self, mask: Tensor, size: tuple[int, int], stroke: Stroke, strength: float = 1.0) -> Change:
        """Change of a layer (height, width) under a brush; a location is painted if any of its pixels is."""
        chosen = torch.zeros(len(self.values), 1, 1)
        chosen[list(self.units)] = 1
        value = self.values * max(1.0, strength) if stroke == "draw" else torch.zeros_like(self.values)
        return Change(chosen * places(mask, size) * min(1.0, strength), value[:, None, None])


def find_units(
    model: LatentModel,
    segmenter: Segmenter,
    space: str,
    label: str,
    layers: Sequence[str],
    units: int = UNITS,
    order: Literal["agreement", "learned"] = "agreement",
    n: int = CODES,
    seed: int = 0,
) -> UnitBrush:
    """Find the units that agree best with a class, in the layer of the unit that agrees best.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes.
        space: Latent space of the samples.
        label: Name of the class.
        layers: Names of the layers that are searched.
        units: Number of units; about twenty (GANPaint).
        order: Order of the units: by agreement, or by how much the class needs them; see `learned_order`.
        n: Number of samples.
        seed: Seed of the samples.

    Raises:
        UserError: There is no such class, no sample has it, or no unit agrees with it.
    """
    column_of_class(segmenter, label)
    if not layers:
        raise Unsupported(f"{type(model).__name__} has no layers with units of an extent")
    codes = model.sample(n, space, seed)
    found = dissect(model, segmenter, codes, layers)
    layer = best_layer(found, label, units)
    if layer is None:
        raise UserError(f"no unit of {', '.join(found)} agrees with {label!r}: search other layers")
    values = class_means(model, segmenter, codes, layer, label)
    if order == "learned":
        ordered = learned_order(model, segmenter, codes, found[layer], label, values)
    else:
        ordered = found[layer].order(label)
    return UnitBrush(label, layer, tuple(ordered[:units]), values)
