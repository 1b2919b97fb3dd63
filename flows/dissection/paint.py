"""Painting: a brush draws or erases a class in a picture (GANPaint; Bau et al. 2019, arXiv 1811.10597)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d, avg_pool2d, max_pool2d

from flows import images as pixels
from flows.dissection.instrument import Change, Probe
from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate

Stroke = Literal["draw", "erase"]
Changes = list[tuple[str, Change]]
"""Of layers, one after the other."""
RESIDUAL_FADE = 0.12
"""Change of a pixel's colours, in [0, 1], at which nothing is left of what the model had not brought back."""
RESIDUAL_FADE_OF_MOVES = 0.5
"""The same of a step of the code, which changes light and colours and leaves most things where they are."""


@dataclass(frozen=True)
class StrokeEdit:
    """What a stroke does to layers, and where that is to be seen.

    Attributes:
        changes: of layers.
        where: bool (H, W).
    """

    changes: Changes
    where: Tensor


@dataclass(frozen=True)
class Canvas:
    """A picture that is painted on.

    Attributes:
        probe: of `instrument`, on the model; its own changes are forgotten.
        codes: Code of the picture.
        picture: uint8 (C, H, W), as it is before a stroke.
        margin: pixels around the brush within which an edit fades.
        earlier: what strokes before changed that is not in the code.
    """

    probe: Probe
    codes: Codes
    picture: Tensor
    margin: int = 2
    earlier: Changes = field(default_factory=list)

    @property
    def model(self) -> LatentModel:
        """Whose units are changed."""
        return self.probe.model

    def drawn(self, changes: Changes, n: int = 1) -> Tensor:
        """Images (n, C, H, W) in [0, 1], on the host, through earlier changes and n ways to go on."""
        return self._draw(self.codes if n == 1 else self.codes.repeat(n), changes)

    def _draw(self, codes: Codes, changes: Changes) -> Tensor:
        self.probe.undo()
        for layer, change in self.earlier + changes:
            self.probe.change(layer, change)
        images = self.probe.decode(codes)
        self.probe.undo()
        return images.clamp(0, 1).float().cpu()

    def composed(self, before: Tensor, after: Tensor, touched: Tensor, fade: float = RESIDUAL_FADE) -> Tensor:
        """What is drawn, within the brush and its margin, on the picture.

        What the model did not bring back of the picture stays where the picture stays, and goes where it
        changes: else a ghost of what was there would lie on what is painted.

        Args:
            before: (1, C, H, W) in [0, 1], drawn without the stroke.
            after: (n, C, H, W), drawn with it.
            touched: bool (H, W), where the brush was.
            fade: Pixel change at which the reconstruction residual has faded to zero; see `RESIDUAL_FADE`.

        Returns:
            (n, C, H, W), the picture elsewhere.
        """
        picture = pixels.to_unit(self.picture[None], self.model.bins)
        change = avg_pool2d((after - before).abs().amax(1, keepdim=True), 3, 1, 1)
        painted = after + (picture - before) * (1 - change / fade).clamp(min=0)
        return picture + (painted - picture) * soft(touched, self.margin)

    def moved(self, step: Tensor) -> "Canvas":
        """The canvas after a step (1, D) of its code; what the model had lost stays where nothing changes."""
        values = self.codes.values
        onward = replace(self, codes=self.codes.with_values(values + step.to(values)))
        before, after = self._draw(concatenate([self.codes, onward.codes]), []).split(1)
        everywhere = torch.ones(self.picture.shape[1:], dtype=torch.bool)
        moved = self.composed(before, after, everywhere, RESIDUAL_FADE_OF_MOVES)
        picture = pixels.to_bytes(moved, self.model.bins)[0]
        return replace(onward, picture=picture)

    def painted(self, stroke_edit: StrokeEdit) -> tuple["Canvas", float]:
        """The canvas after a stroke, and the largest change of a pixel elsewhere before that was put back."""
        before, after = self.drawn([]), self.drawn(stroke_edit.changes)
        edited = pixels.to_bytes(self.composed(before, after, stroke_edit.where), self.model.bins)[0]
        picture = torch.where(soft(stroke_edit.where, self.margin) > 0, edited, self.picture)
        beyond = (after - before)[0].abs().amax(0)[~stroke_edit.where]
        outside = float(beyond.max()) if len(beyond) else 0.0
        if exact(self.probe):
            again = self.model.encode_bytes(picture[None], self.probe.space, self.codes.labels)
            return replace(self, codes=again, picture=picture), outside
        return replace(self, picture=picture, earlier=self.earlier + stroke_edit.changes), outside


class Brush(Protocol):
    """Whatever draws or erases a class."""

    @property
    def label(self) -> str:
        """Name of the class."""
        ...

    def stroke_edit(self, canvas: Canvas, mask: Tensor, stroke: Stroke, strength: float) -> StrokeEdit:
        """What a stroke does, to be seen within the mask at most.

        Args:
            canvas: the picture.
            mask: bool (H, W), where the brush was.
            stroke: draw or erase.
            strength: 1 does all, 0 nothing.
        """
        ...


@dataclass(frozen=True)
class Painted:
    """A painted picture.

    Attributes:
        image: uint8 (C, H, W), edited inside the edit's region, the very bytes it was outside.
        stages: likewise, after each stroke; the last is `image`.
        changed: bool (H, W), where it differs.
        outside: largest change of a pixel outside the brush before the rest was put back, in [0, 1].
        dabs: one for each stroke, by which `repaint` paints it again.
    """

    image: Tensor
    stages: list[Tensor]
    changed: Tensor
    outside: float
    stroke_edits: list[StrokeEdit]

    @property
    def layers(self) -> dict[str, int]:
        """Those that were changed, to the number of their units that were."""
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
    """Strokes on one picture; with no strokes it is the original, byte for byte.

    A stroke goes on from the picture that those before it left: where the inverse is exact from its
    own code, else from the first code through the changes so far.

    Args:
        probe: of `instrument`, on the model; its own changes are forgotten.
        codes: Code of the picture.
        original: uint8 (C, H, W).
        strokes: brush, bool (H, W) where it was, and whether it draws or erases; in their order.
        strength: see `Brush.dab`.
        margin: pixels around the brush within which the edit fades.
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
    """The picture again, uint8 (C, H, W), that `paint` left by these dabs; arguments as there."""
    canvas = Canvas(probe, codes, original, margin)
    for stroke_edit in stroke_edits:
        canvas, _ = canvas.painted(stroke_edit)
    return canvas.picture


def exact(probe: Probe) -> bool:
    """Whether what was painted has a code of its own, on which the next stroke goes on."""
    return probe.model.spaces[probe.space].exact


def touched_units(changes: Changes) -> dict[str, int]:
    """Layers to the number of their units that are changed anywhere."""
    units: dict[str, Tensor] = {}
    for layer, change in changes:
        amount, _ = torch.broadcast_tensors(change.amount, change.value)
        some = (amount != 0).flatten(-2).any(-1).reshape(-1, amount.shape[-3]).any(0)
        units[layer] = units[layer] | some if layer in units else some
    return {layer: int(some.sum()) for layer, some in units.items()}


def places(mask: Tensor, size: tuple[int, int]) -> Tensor:
    """1 where a layer of this (height, width) lies under a brush, bool (H, W), else 0: (1, height, width)."""
    return adaptive_max_pool2d(mask[None, None].float(), size)[0]


def grown(mask: Tensor, by: int) -> Tensor:
    """A mask, bool (…, H, W), and what is within so many pixels of it."""
    if not by:
        return mask
    wide = max_pool2d(mask.reshape(-1, 1, *mask.shape[-2:]).float(), 2 * by + 1, 1, by)
    return (wide > 0).reshape(mask.shape)


def soft(mask: Tensor, margin: int) -> Tensor:
    """1 within a mask, bool (H, W), falling to 0 over `margin` pixels around it: (H, W)."""
    share = mask.float()
    for i in range(margin):
        share = torch.maximum(share, grown(mask, i + 1) * (1 - (i + 1) / (margin + 1)))
    return share
