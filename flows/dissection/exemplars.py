"""Exemplar brushes, which copy a class at the same location from other images of the model.

Activations of layers under the brush are replaced by those of an image that has the class there (Suzuki et
al. 2018, arXiv 1811.10153; Collins et al. 2020, arXiv 2004.14367). For a flow these are parts of the code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.once import prepared
from flows.dissection.paint import Canvas, Changes, Stroke, StrokeEdit, grown, places, soft
from flows.dissection.probe import CODE, Change, Probe, instrument, outer_layers
from flows.errors import Unsupported, UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter, column_of_class, segment_bytes

__all__ = ["ExemplarBrush", "Pictures", "exemplars_of_codes", "exemplars_of_images"]

CANDIDATES = 6
"""Number of exemplars that are tried for a stroke, in each set of layers."""
AROUND = 0.2
"""Width of the surroundings in which exemplars are compared, as a share of the image's height."""
EDGE = 1
"""Number of pixels around an object that are transferred with it."""
ALIKE, CLEAR, SEAM = 0.5, 4.0, 2.0
"""Weights in the scores of exemplars: dissimilar surroundings, pixels of a class that is erased, and changes
around the brush. The overlap and the probability of a class that is drawn have weight 1.
"""


@dataclass(frozen=True)
class Pictures:
    """Images as a model decodes them, with masks of all classes.

    Attributes:
        images: uint8 (n, C, H, W), decoded images.
        masks: bool (n, classes, H, W).
        segmenter: Segmenter of the masks.
        space: Name of the space of the codes.
        known: Codes of the images; None if an exact inverse encodes them when they are needed.
        labels: int64 (n,), classes of the images, if they are known and not in `known`.
    """

    images: Tensor
    masks: Tensor
    segmenter: Segmenter
    space: str
    known: Codes | None = None
    labels: Tensor | None = None

    def codes(self, model: LatentModel, chosen: Tensor) -> Codes:
        """Codes of some of the images, by index."""
        if self.known is not None:
            return self.known[chosen]
        labels = None if self.labels is None else self.labels[chosen]
        return model.encode_bytes(self.images[chosen], self.space, labels)

    def brush(self, model: LatentModel, label: str, layers: Sequence[str] | None = None) -> "ExemplarBrush":
        """Create the brush of a class.

        Args:
            model: Model of the images.
            label: Name of the class.
            layers: Layers, each of which is tried on its own; None takes `ways_to_draw`.

        Raises:
            UserError: There is no such class, or no image has it.
            Unsupported: The model has no spatial layer.
        """
        column = column_of_class(self.segmenter, label)
        if not self.masks[:, column].any():
            raise UserError(
                f"none of the {len(self.masks)} images contains the class {label!r}: take more exemplars"
            )
        ways = [(layer,) for layer in layers] if layers else ways_to_draw(model, self.space)
        if not ways:
            raise Unsupported(f"{type(model).__name__} has no spatial layer: expected a convolutional model")
        return ExemplarBrush(label, column, self, tuple(ways))


@torch.no_grad()
def exemplars_of_codes(model: LatentModel, segmenter: Segmenter, codes: Codes) -> Pictures:
    """Decode codes and segment the images."""
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
    """Segment uint8 images (n, C, H, W), for a model with an exact inverse, which reconstructs them."""
    masks = segment_bytes(segmenter, images, model.bins, model.device)
    return Pictures(images, masks, segmenter, space, labels=labels)


def ways_to_draw(model: LatentModel, space: str) -> list[tuple[str, ...]]:
    """Sets of layers whose activations can be copied from an exemplar; each set suffices to draw an object.

    If the spatial parts of a code make up the whole code, they are a single set. Otherwise each part and each
    of the outermost layers is a set of its own. Inner layers of a flow are not used, because they do not hold
    all that the image is decoded from.
    """
    parts = [CODE + level for level in model.spaces[space].maps]
    if parts and model.spaces[space].exact:
        return [tuple(parts)]
    return [(name,) for name in (*parts, *(outer_layers(model) or model.layers()))]


@dataclass(frozen=True)
class ExemplarBrush:
    """Brush that draws a class as in exemplars that have it, and erases it as in exemplars that lack it.

    A few images are tried in each set of layers: those whose class mask overlaps best with the brush and
    whose surroundings are most similar. The segmenter selects one of them.

    Attributes:
        label: Name of the class.
        column: Column of the class in the segmenter's output.
        pictures: Images from which exemplars are selected.
        ways: Sets of layers; see `ways_to_draw`.
    """

    label: str
    column: int
    pictures: Pictures
    ways: tuple[tuple[str, ...], ...]

    def stroke_edit(self, canvas: Canvas, mask: Tensor, stroke: Stroke, strength: float) -> StrokeEdit:
        """Edit of a stroke; see `paint.Brush`. Strengths above 1 count as 1.

        Erasing a class that is not present changes nothing.

        Raises:
            UserError: No image has the class under the brush.
        """
        if stroke == "erase":
            present = self.seen(canvas, pixels.to_unit(canvas.picture[None], canvas.model.bins))
            mask = mask & grown(present, EDGE)
            if not mask.any():
                return StrokeEdit([], mask)
        before = canvas.decoded([])
        chosen = self.nearest(before[0], mask, stroke, canvas.model.bins)
        amount, best = min(1.0, strength), -float("inf")
        changes, painted = Changes(), before
        for layers in self.ways:
            values = self.activations(canvas.probe, chosen, layers)
            candidate = [
                (layer, Change(amount * places(mask, canvas.probe.layers[layer].size), values[layer]))
                for layer in layers
            ]
            after = canvas.decoded(candidate, len(chosen))
            images = canvas.composed(before, after, mask)
            merits = self.merits(canvas, images, (after - before).abs().mean(1), mask, stroke)
            if float(merits.max()) > best:
                best, pick = float(merits.max()), slice(int(merits.argmax()), int(merits.argmax()) + 1)
                changes = [(layer, Change(each.amount, each.value[pick])) for layer, each in candidate]
                painted = images[pick]
        if stroke == "erase":
            return StrokeEdit(changes, mask)
        visible = self.seen(canvas, painted) & mask
        return StrokeEdit(changes, mask & grown(visible, EDGE) if visible.any() else mask)

    def seen(self, canvas: Canvas, image: Tensor) -> Tensor:
        """Mask of the class, bool (H, W), in an image (1, C, H, W)."""
        return self.pictures.segmenter.segment(image.to(canvas.model.device))[0, self.column].cpu()

    def nearest(self, image: Tensor, mask: Tensor, stroke: Stroke, bins: int) -> Tensor:
        """Indices of the images that are tried as exemplars, best first.

        Args:
            image: (C, H, W) in [0, 1], the image that is painted on.
            mask: bool (H, W), the brush.
            stroke: Stroke; `draw` selects images with the class under the brush, `erase` those without it
                there.
            bins: Number of grey levels of the images.

        Raises:
            UserError: No image has the class under the brush.
        """
        masks = self.pictures.masks[:, self.column]
        covered = (masks & mask).flatten(1).sum(1) / (masks | mask).flatten(1).sum(1)
        others = pixels.to_unit(self.pictures.images, bins)
        unlike = ((others - image).square() * surroundings(mask)).flatten(1).sum(1)
        unlike = unlike / unlike.median().clamp(min=1e-9)
        merit = (covered if stroke == "draw" else -CLEAR * covered) - ALIKE * unlike
        usable = covered > 0 if stroke == "draw" else torch.ones_like(covered, dtype=torch.bool)
        if not usable.any():
            raise UserError(
                f"none of the {len(masks)} images contains the class {self.label!r} under the brush: draw it "
                "elsewhere, or take more exemplars"
            )
        order = merit.where(usable, -torch.inf).argsort(descending=True)
        return order[: min(CANDIDATES, int(usable.sum()))]

    def activations(self, probe: Probe, chosen: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
        """Activations of layers for some of the images: (images, C, height, width) by layer."""
        model = probe.model
        other = Probe(model, probe.space)
        other.retain(*layers)
        other.decode(self.pictures.codes(model, chosen))
        return other.kept

    def merits(self, canvas: Canvas, images: Tensor, change: Tensor, mask: Tensor, stroke: Stroke) -> Tensor:
        """Scores of strokes, (n,): class probability under the brush, less the change around the brush.

        Args:
            canvas: Canvas of the stroke.
            images: (n, C, H, W), images with the strokes.
            change: (n, H, W), change of the decoded images, before they are composed with the original.
            mask: bool (H, W), the brush.
            stroke: Stroke; `erase` negates the probability.
        """
        probabilities = self.pictures.segmenter.probabilities(images.to(canvas.model.device))
        inside = probabilities[:, self.column].cpu()[:, mask].mean(1)
        ring = surroundings(mask) > 0
        seam = change[:, ring].mean(1) if ring.any() else torch.zeros(len(change))
        return (inside if stroke == "draw" else -inside) - SEAM * seam


def surroundings(mask: Tensor) -> Tensor:
    """Strip around a mask, bool (H, W): 1 in the strip and 0 elsewhere, (H, W)."""
    return (soft(mask, max(1, round(AROUND * mask.shape[0]))) > 0).float() - mask.float()
