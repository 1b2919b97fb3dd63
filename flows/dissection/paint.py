"""Painting: brushes draw or erase a class in an image (GANPaint; Bau et al. 2019, arXiv 1811.10597)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, max_pool2d

from flows import images as pixels
from flows.dissection.probe import Change, Probe
from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate

__all__ = ["Brush", "Canvas", "Painted", "StrokeEdit"]

Stroke = Literal["draw", "erase"]
Changes = list[tuple[str, Change]]
"""Changes of layers, applied in order."""
RESIDUAL_FADE = 0.12
"""Pixel change, in [0, 1], at which the reconstruction residual has faded to zero."""
RESIDUAL_FADE_OF_MOVES = 0.5
"""Pixel change at which the residual has faded to zero when the code is moved; such a move changes light and
colours and leaves most objects in place.
"""


@dataclass(frozen=True)
class StrokeEdit:
    """Changes of layers by a stroke, and the region in which they are visible.

    Attributes:
        changes: Changes of layers.
        where: bool (H, W), visible region.
    """

    changes: Changes
    where: Tensor


@dataclass(frozen=True)
class Canvas:
    """Image that is painted on.

    Attributes:
        probe: Probe of `instrument` on the model; its own changes are removed.
        codes: Code of the image.
        picture: uint8 (C, H, W), the image before a stroke.
        margin: Number of pixels around the brush within which an edit fades.
        earlier: Changes by earlier strokes that are not in the code.
    """

    probe: Probe
    codes: Codes
    picture: Tensor
    margin: int = 2
    earlier: Changes = field(default_factory=list)

    @property
    def model(self) -> LatentModel:
        """Model whose units are changed."""
        return self.probe.model

    def decoded(self, changes: Changes, n: int = 1) -> Tensor:
        """Images (n, C, H, W) in [0, 1], on the host, with earlier changes and n alternatives of new ones."""
        return self._decode(self.codes if n == 1 else self.codes.repeat(n), changes)

    def _decode(self, codes: Codes, changes: Changes) -> Tensor:
        self.probe.undo()
        for layer, change in self.earlier + changes:
            self.probe.change(layer, change)
        images = self.probe.decode(codes)
        self.probe.undo()
        return images.clamp(0, 1).float().cpu()

    def composed(self, before: Tensor, after: Tensor, touched: Tensor, fade: float = RESIDUAL_FADE) -> Tensor:
        """Compose the image with decoded images, within the brush and its margin.

        The reconstruction residual is kept where the edit leaves the image unchanged and faded out where it
        changes; otherwise the old content would remain visible as a ghost.

        Args:
            before: (1, C, H, W) in [0, 1], decoded without the stroke.
            after: (n, C, H, W), decoded with the stroke.
            touched: bool (H, W), the brush.
            fade: Pixel change at which the reconstruction residual has faded to zero; see `RESIDUAL_FADE`.

        Returns:
            Images (n, C, H, W) in [0, 1], unchanged outside the brush and its margin.
        """
        picture = pixels.to_unit(self.picture[None], self.model.bins)
        change = avg_pool2d((after - before).abs().amax(1, keepdim=True), 3, 1, 1)
        painted = after + (picture - before) * (1 - change / fade).clamp(min=0)
        return picture + (painted - picture) * soft(touched, self.margin)

    def moved(self, step: Tensor) -> "Canvas":
        """Canvas after a step (1, D) of its code; the residual is kept where the image does not change."""
        values = self.codes.values
        stepped = replace(self, codes=self.codes.with_values(values + step.to(values)))
        before, after = self._decode(concatenate([self.codes, stepped.codes]), []).split(1)
        whole = torch.ones(self.picture.shape[1:], dtype=torch.bool)
        moved = self.composed(before, after, whole, RESIDUAL_FADE_OF_MOVES)
        picture = pixels.to_bytes(moved, self.model.bins)[0]
        return replace(stepped, picture=picture)

    def painted(self, stroke_edit: StrokeEdit) -> tuple["Canvas", float]:
        """Canvas after a stroke, and the largest change that the decoder makes outside it, not applied."""
        before, after = self.decoded([]), self.decoded(stroke_edit.changes)
        edited = pixels.to_bytes(self.composed(before, after, stroke_edit.where), self.model.bins)[0]
        picture = torch.where(soft(stroke_edit.where, self.margin) > 0, edited, self.picture)
        beyond = (after - before)[0].abs().amax(0)[~stroke_edit.where]
        outside = float(beyond.max()) if len(beyond) else 0.0
        if exact(self.probe):
            codes = self.model.encode_bytes(picture[None], self.probe.space, self.codes.labels)
            return replace(self, codes=codes, picture=picture), outside
        return replace(self, picture=picture, earlier=self.earlier + stroke_edit.changes), outside


class Brush(Protocol):
    """Protocol of objects that draw or erase a class."""

    @property
    def label(self) -> str:
        """Name of the class."""
        ...

    def stroke_edit(self, canvas: Canvas, mask: Tensor, stroke: Stroke, strength: float) -> StrokeEdit:
        """Edit of a stroke, visible at most within the mask.

        Args:
            canvas: Canvas of the stroke.
            mask: bool (H, W), the brush.
            stroke: Stroke, `draw` or `erase`.
            strength: Strength of the edit; 0 changes nothing, 1 has the full effect.
        """
        ...


@dataclass(frozen=True)
class Painted:
    """Image with all strokes.

    Attributes:
        image: uint8 (C, H, W), edited; outside the edits and their margin, every byte is the original's.
        stages: uint8 (C, H, W) images after each stroke; the last one is `image`.
        changed: bool (H, W), pixels that differ from the original.
        outside: Largest change, in [0, 1], that the decoder makes outside a stroke; it is not applied.
        stroke_edits: Edits of the strokes, which `repaint` applies again.
    """

    image: Tensor
    stages: list[Tensor]
    changed: Tensor
    outside: float
    stroke_edits: list[StrokeEdit]

    @property
    def layers(self) -> dict[str, int]:
        """Changed layers, with the number of their units that are changed."""
        return touched_units([change for stroke_edit in self.stroke_edits for change in stroke_edit.changes])


@torch.no_grad()
def paint(
    probe: Probe,
    codes: Codes,
    original: Tensor,
    strokes: Sequence[tuple[Brush, Tensor, Stroke]],
    strength: float = 1.0,
    margin: int = 2,
) -> Painted:
    """Apply strokes to an image; without strokes the result is the original, byte for byte.

    A stroke continues from the image with all strokes before it: from the code of that image if the inverse
    is exact, otherwise from the first code with all changes so far.

    Args:
        probe: Probe of `instrument` on the model; its own changes are removed.
        codes: Code of the image.
        original: uint8 (C, H, W).
        strokes: Brush, bool (H, W) mask of the brush, and `draw` or `erase`, in order.
        strength: Strength of the edits; see `Brush.stroke_edit`.
        margin: Number of pixels around the brush within which an edit fades.
    """
    canvas, stroke_edits, stages = Canvas(probe, codes, original, margin), list[StrokeEdit](), list[Tensor]()
    outside = 0.0
    for brush, mask, stroke in strokes:
        stroke_edits.append(brush.stroke_edit(canvas, mask, stroke, strength))
        canvas, beyond = canvas.painted(stroke_edits[-1])
        stages.append(canvas.picture)
        outside = max(outside, beyond)
    return Painted(canvas.picture, stages, (canvas.picture != original).any(0), outside, stroke_edits)


@torch.no_grad()
def repaint(
    probe: Probe, codes: Codes, original: Tensor, stroke_edits: Sequence[StrokeEdit], margin: int = 2
) -> Tensor:
    """Apply the edits of `Painted.stroke_edits` again: uint8 (C, H, W); other arguments as for `paint`."""
    canvas = Canvas(probe, codes, original, margin)
    for stroke_edit in stroke_edits:
        canvas, _ = canvas.painted(stroke_edit)
    return canvas.picture


def exact(probe: Probe) -> bool:
    """Whether a painted image has a code of its own, from which the next stroke continues."""
    return probe.model.spaces[probe.space].exact


def touched_units(changes: Changes) -> dict[str, int]:
    """Layer to the number of its units that are changed anywhere."""
    units: dict[str, Tensor] = {}
    for layer, change in changes:
        amount, _ = torch.broadcast_tensors(change.amount, change.value)
        some = (amount != 0).flatten(-2).any(-1).reshape(-1, amount.shape[-3]).any(0)
        units[layer] = units[layer] | some if layer in units else some
    return {layer: int(some.sum()) for layer, some in units.items()}


def places(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """Mask (1, height, width), 1 or 0, of a layer's locations that lie under a brush, bool (H, W)."""
    return adaptive_max_pool2d(mask[None, None].float(), size)[0]


def grown(mask: Tensor, by: int) -> Tensor:
    """Mask, bool (…, H, W), dilated by a number of pixels."""
    if not by:
        return mask
    wide = max_pool2d(mask.reshape(-1, 1, *mask.shape[-2:]).float(), 2 * by + 1, 1, by)
    return (wide > 0).reshape(mask.shape)


def soft(mask: Tensor, margin: int) -> Tensor:
    """Weights (H, W): 1 within a mask, bool (H, W), falling to 0 over `margin` pixels around it."""
    share = mask.float()
    for i in range(margin):
        share = torch.maximum(share, grown(mask, i + 1) * (1 - (i + 1) / (margin + 1)))
    return share
