"""A brush of exemplars: a class is drawn as the model draws it in other pictures, at the same place.

The layers' activations under the brush are replaced by those of a picture that has the class there (Suzuki et
al. 2018, arXiv 1811.10153; Collins et al. 2020, arXiv 2004.14367). Of a flow these are parts of its code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.dissection.instrument import CODE, Change, Probe, instrument, outer_layers
from flows.dissection.paint import Canvas, Changes, Stroke, StrokeEdit, grown, places, soft
from flows.errors import Unsupported, UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.once import prepared
from flows.semantics.base import Segmenter, column_of_class, segment_bytes

CANDIDATES = 6
"""Exemplars that are tried for a stroke, in every set of layers."""
AROUND = 0.2
"""Width of the surroundings by which exemplars are compared, as a share of the picture's height."""
EDGE = 1
"""Pixels around a thing that come and go with it."""
ALIKE, CLEAR, SEAM = 0.5, 4.0, 2.0
"""What unlike surroundings, a class that is to go, and change around a brush count, beside what is drawn."""


@dataclass(frozen=True)
class Pictures:
    """Pictures as a model draws them, with the classes that are seen in them: one set for all classes.

    Attributes:
        images: uint8 (n, C, H, W), drawn.
        masks: bool (n, classes, H, W).
        segmenter: who saw them.
        space: of their codes.
        known: Codes of the pictures; None where an exact inverse encodes them when they are needed.
        labels: int64 (n,), classes of the pictures, where they are known and not in `known`.
    """

    images: Tensor
    masks: Tensor
    segmenter: Segmenter
    space: str
    known: Codes | None = None
    labels: Tensor | None = None

    def codes(self, model: LatentModel, chosen: Tensor) -> Codes:
        """Codes of some of the pictures, by number."""
        if self.known is not None:
            return self.known[chosen]
        labels = None if self.labels is None else self.labels[chosen]
        return model.encode_bytes(self.images[chosen], self.space, labels)

    def brush(self, model: LatentModel, label: str, layers: Sequence[str] | None = None) -> "ExemplarBrush":
        """A brush of a class.

        Args:
            model: that drew them.
            label: name of the class.
            layers: each a way to draw; None takes those of `ways_to_draw`.

        Raises:
            ValueError: there is no such class, or no picture has it.
        """
        column = column_of_class(self.segmenter, label)
        if not self.masks[:, column].any():
            raise UserError(f"none of {len(self.masks)} pictures has a {label}: nothing to paint it after")
        ways = [(layer,) for layer in layers] if layers else ways_to_draw(model, self.space)
        if not ways:
            raise Unsupported(
                f"no layer of {type(model).__name__} lies over the image: nothing to paint with"
            )
        return ExemplarBrush(label, column, self, tuple(ways))


@torch.no_grad()
def exemplars_of_codes(model: LatentModel, segmenter: Segmenter, codes: Codes) -> Pictures:
    """Decode codes, and segment the images."""
    images, masks = [], []
    with instrument(model, codes.space) as probe, prepared():
        for _, batch in probe.batches(codes):
            batch = batch.clamp(0, 1).float()
            images.append(pixels.to_bytes(batch, model.bins))
            masks.append(segmenter.segment(batch).cpu())
    return Pictures(torch.cat(images), torch.cat(masks), segmenter, codes.space, codes)


def exemplars_of_images(
    model: LatentModel, segmenter: Segmenter, images: Tensor, space: str, labels: Tensor | None = None
) -> Pictures:
    """See the classes in uint8 images (n, C, H, W) that a model with an exact inverse draws as they are."""
    seen = segment_bytes(segmenter, images, model.bins, model.device)
    return Pictures(images, seen, segmenter, space, labels=labels)


def ways_to_draw(model: LatentModel, space: str) -> list[tuple[str, ...]]:
    """Sets of layers that can be taken from another picture: each draws what is under the brush.

    All parts of the code that lie over the image, where together they are the code, are one set; else every
    part and every one of the outermost layers is one of its own. A flow's inner layers are none:
    what they hold is not all that is drawn from there.
    """
    parts = [CODE + level for level in model.spaces[space].maps]
    if parts and model.spaces[space].exact:
        return [tuple(parts)]
    return [(name,) for name in (*parts, *(outer_layers(model) or model.units()))]


@dataclass(frozen=True)
class ExemplarBrush:
    """Draws a class as pictures that have it do, and erases it as pictures do that lack it there.

    Of the pictures whose class lies most as the brush does, and whose surroundings are most alike, a few are
    tried, in every set of layers; the segmenter says which.

    Attributes:
        label: name of the class.
        column: of the class, of the segmenter's.
        pictures: among which exemplars are looked for.
        ways: sets of layers; see `ways_to_draw`.
    """

    label: str
    column: int
    pictures: Pictures
    ways: tuple[tuple[str, ...], ...]

    def stroke_edit(self, canvas: Canvas, mask: Tensor, stroke: Stroke, strength: float) -> StrokeEdit:
        """See `paint.Brush`; a strength above 1 is as 1. Erasing what is not there does nothing.

        Raises:
            ValueError: no picture has the class under the brush.
        """
        if stroke == "erase":
            present = self.seen(canvas, pixels.to_unit(canvas.picture[None], canvas.model.bins))
            mask = mask & grown(present, EDGE)
            if not mask.any():
                return StrokeEdit([], mask)
        before = canvas.drawn([])
        chosen = self.nearest(before[0], mask, stroke, canvas.model.bins)
        amount, best = min(1.0, strength), -float("inf")
        found, drawn = Changes(), before
        for layers in self.ways:
            values = self.activations(canvas.probe, chosen, layers)
            tried = [
                (layer, Change(amount * places(mask, canvas.probe.layers[layer].size), values[layer]))
                for layer in layers
            ]
            after = canvas.drawn(tried, len(chosen))
            images = canvas.composed(before, after, mask)
            merits = self.merits(canvas, images, (after - before).abs().mean(1), mask, stroke)
            if float(merits.max()) > best:
                best, pick = float(merits.max()), slice(int(merits.argmax()), int(merits.argmax()) + 1)
                found = [(layer, Change(each.amount, each.value[pick])) for layer, each in tried]
                drawn = images[pick]
        if stroke == "erase":
            return StrokeEdit(found, mask)
        thing = self.seen(canvas, drawn) & mask
        return StrokeEdit(found, mask & grown(thing, EDGE) if thing.any() else mask)

    def seen(self, canvas: Canvas, image: Tensor) -> Tensor:
        """Where the class is in an image (1, C, H, W), bool (H, W)."""
        return self.pictures.segmenter.segment(image.to(canvas.model.device))[0, self.column].cpu()

    def nearest(self, image: Tensor, mask: Tensor, stroke: Stroke, bins: int) -> Tensor:
        """Numbers of the pictures that could stand for what is under the brush, the best first.

        Args:
            image: (C, H, W) in [0, 1], what is painted on.
            mask: bool (H, W), where the brush was.
            stroke: draw looks for pictures whose class lies there; erase for those without it there.
            bins: grey levels of the pictures.
        """
        seen = self.pictures.masks[:, self.column]
        covered = (seen & mask).flatten(1).sum(1) / (seen | mask).flatten(1).sum(1)
        others = pixels.to_unit(self.pictures.images, bins)
        unlike = ((others - image).square() * surroundings(mask)).flatten(1).sum(1)
        unlike = unlike / unlike.median().clamp(min=1e-9)
        merit = (covered if stroke == "draw" else -CLEAR * covered) - ALIKE * unlike
        usable = covered > 0 if stroke == "draw" else torch.ones_like(covered, dtype=torch.bool)
        if not usable.any():
            raise UserError(
                f"none of {len(seen)} pictures has a {self.label} under the brush: draw it elsewhere, or "
                "take more pictures"
            )
        order = merit.where(usable, -torch.inf).argsort(descending=True)
        return order[: min(CANDIDATES, int(usable.sum()))]

    def activations(self, probe: Probe, chosen: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """What these layers hold in pictures: (pictures, C, height, width) by layer."""
        model = probe.model
        other = Probe(model, probe.space)
        other.retain(*layers)
        other.decode(self.pictures.codes(model, chosen))
        return other.kept

    def merits(self, canvas: Canvas, images: Tensor, change: Tensor, mask: Tensor, stroke: Stroke) -> Tensor:
        """How well strokes did, (n,): share of the class under the brush, less what changed around it.

        Args:
            canvas: the picture.
            images: (n, C, H, W), with the strokes.
            change: (n, H, W), of what is drawn, before the rest is put back.
            mask: bool (H, W), where the brush was.
            stroke: draw or erase.
        """
        found = self.pictures.segmenter.probabilities(images.to(canvas.model.device))
        there = found[:, self.column].cpu()[:, mask].mean(1)
        ring = surroundings(mask) > 0
        seam = change[:, ring].mean(1) if ring.any() else torch.zeros(len(change))
        return (there if stroke == "draw" else -there) - SEAM * seam


def surroundings(mask: Tensor) -> Tensor:
    """1 in a strip around a mask, bool (H, W), and 0 elsewhere, (H, W)."""
    return (soft(mask, max(1, round(AROUND * mask.shape[0]))) > 0).float() - mask.float()
