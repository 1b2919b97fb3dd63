"""Painting with units: a brush, a class, and the units that draw it (GANPaint; Bau et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from flows import images as pixels
from flows.dissection.instrument import Change, Probe
from flows.models.base import LatentModel

Stroke = Literal["draw", "erase"]


@dataclass(frozen=True)
class Brush:
    """Units of a layer that draw a class.

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

    def change(self, mask: Tensor, size: tuple[int, int], stroke: Stroke, strength: float = 1.0) -> Change:
        """What a stroke does to the layer.

        Args:
            mask: bool (H, W), where the brush was.
            size: (height, width) of the layer; a place is painted where any of its pixels is.
            stroke: set the units to their values, or to 0.
            strength: 1 sets them, 0 leaves them, above 1 exceeds the values.
        """
        places = adaptive_max_pool2d(mask[None, None].float(), size)[0]
        chosen = torch.zeros(len(self.values), 1, 1)
        chosen[list(self.units)] = 1
        value = self.values * max(1.0, strength) if stroke == "draw" else torch.zeros_like(self.values)
        return Change(chosen * places * min(1.0, strength), value[:, None, None])


@dataclass(frozen=True)
class Painted:
    """A painted picture.

    Attributes:
        image: uint8 (C, H, W), edited inside the edit's region, the very bytes it was outside.
        changed: bool (H, W), where it differs.
        outside: largest change of a pixel outside the brush before the rest was put back, in [0, 1].
    """

    image: Tensor
    changed: Tensor
    outside: float


@torch.no_grad()
def paint(
    probe: Probe,
    code: Tensor,
    original: Tensor,
    strokes: Sequence[tuple[Brush, Tensor, Stroke]],
    strength: float = 1.0,
    margin: int = 2,
) -> Painted:
    """Strokes on one picture; with no strokes it is the original, byte for byte.

    The edit is the difference of what is drawn with the strokes and without, added to the original within
    the brush and a margin: a model that does not bring the picture back exactly spoils nothing else.

    Args:
        probe: of `instrument`, on the model; its own changes are forgotten.
        code: (1, D), of the picture.
        original: uint8 (C, H, W).
        strokes: brush, bool (H, W) where it was, and whether it draws or erases; in their order.
        strength: see `Brush.change`.
        margin: pixels around the brush within which the edit fades.
    """
    model = probe.model
    probe.undo()
    if not strokes:
        return Painted(original.clone(), torch.zeros(original.shape[1:], dtype=torch.bool), 0.0)
    before = _decoded(probe, model, code)
    for brush, mask, stroke in strokes:
        unit = probe.layers[brush.layer]
        probe.change(brush.layer, brush.change(mask, unit.size, stroke, strength))
    after = _decoded(probe, model, code)
    probe.undo()
    touched = torch.stack([mask for _, mask, _ in strokes]).any(0)
    share = soft(touched, margin)
    edit = (after - before) * share
    start = pixels.to_unit(original[None], model.bins)[0]
    image = pixels.to_bytes((start + edit)[None], model.bins)[0]
    image = torch.where(share > 0, image, original)
    outside = (after - before).abs().amax(0)[~touched]
    return Painted(image, (image != original).any(0), float(outside.max()) if len(outside) else 0.0)


def _decoded(probe: Probe, model: LatentModel, code: Tensor) -> Tensor:
    drawn = probe.decode(code.to(model.device, model.dtype), model.first_class(len(code)))
    return drawn[0].clamp(0, 1).float().cpu()


def soft(mask: Tensor, margin: int) -> Tensor:
    """1 within a mask, bool (H, W), falling to 0 over `margin` pixels around it: (H, W)."""
    share, grown = mask.float(), mask.float()
    for i in range(margin):
        grown = torch.nn.functional.max_pool2d(grown[None, None], 3, 1, 1)[0, 0]
        share = torch.maximum(share, grown * (1 - (i + 1) / (margin + 1)))
    return share
