"""A brush of the units that draw a class (GANPaint; Bau et al. 2019, arXiv 1811.10597)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from flows.dissection.causal import class_means
from flows.dissection.dissect import best_layer, dissect
from flows.dissection.instrument import Change
from flows.dissection.intervention import learned_order
from flows.dissection.paint import Canvas, Stroke, StrokeEdit, places
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.semantics.base import Segmenter, column_of_class

UNITS, CODES = 20, 400


@dataclass(frozen=True)
class UnitBrush:
    """Units of a layer that draw a class: set to what they usually are where it is, or to 0.

    Attributes:
        label: name of the class.
        layer: of the units.
        units: about twenty.
        values: (channels,), what they are set to, to draw; see `causal.class_means`.
    """

    label: str
    layer: str
    units: tuple[int, ...]
    values: Tensor

    def stroke_edit(self, canvas: Canvas, mask: Tensor, stroke: Stroke, strength: float) -> StrokeEdit:
        """See `paint.Brush`; a strength above 1 exceeds the values."""
        size = canvas.probe.layers[self.layer].size
        return StrokeEdit([(self.layer, self.change(mask, size, stroke, strength))], mask)

    def change(self, mask: Tensor, size: tuple[int, int], stroke: Stroke, strength: float = 1.0) -> Change:
        """The change of a layer of this (height, width); a place is painted where any of its pixels is."""
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
    """The units that agree best with a class, of the layer in which one agrees best of all.

    Args:
        model: in eval mode.
        segmenter: of the classes.
        space: of the codes.
        label: name of the class.
        layers: among which.
        units: how many; about twenty (GANPaint).
        order: by agreement, or by how much the class needs them, see `learned_order`.
        n: samples.
        seed: of samples.

    Raises:
        ValueError: there is no such class, or no sample has it, or no unit agrees with it.
    """
    column_of_class(segmenter, label)
    codes = model.sample(n, space, seed)
    found = dissect(model, segmenter, codes, layers)
    layer = best_layer(found, label, units)
    if layer is None:
        raise UserError(
            f"no unit of {', '.join(found)} agrees with {label!r}: there is nothing to paint it with"
        )
    values = class_means(model, segmenter, codes, layer, label)
    if order == "learned":
        ordered = learned_order(model, segmenter, codes, found[layer], label, values)
    else:
        ordered = found[layer].order(label)
    return UnitBrush(label, layer, tuple(ordered[:units]), values)
