"""Artefacts: units that generate an unwanted class, and the quality of samples without them.

Bau et al. 2019, arXiv 1811.10597, section 4.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.dissection.causal import seen_through, units_change
from flows.dissection.probe import layer_of
from flows.errors import UserError
from flows.metrics.perceptual import kernel_distance
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter, column_of_class, segment_bytes

__all__ = ["Cleaning", "clean"]

FEWEST = 100
"""Minimum number of real images without the artefact that a distance is computed from."""


@dataclass(frozen=True, kw_only=True)
class Cleaning:
    """Samples with an increasing number of an artefact's units ablated.

    Attributes:
        label: Name of the artefact's class.
        layer: Layer of the units.
        units: Channels of the units, in the order of their ablation.
        sizes: Numbers of ablated units, starting with 0.
        images: Share of samples in which the artefact is visible, for each number.
        area: Artefact's share of all pixels, for each number.
        distance: KID to real images without the artefact, for each number.
        floor: KID between two halves of these real images.
        real: Number of these real images, and of the samples that are compared with them.
        shown: uint8 (n, C, H, W) for each number: the samples with most of the artefact before ablation.
    """

    label: str
    layer: str
    units: list[int]
    sizes: list[int]
    images: list[float]
    area: list[float]
    distance: list[float]
    floor: float
    real: int
    shown: list[Tensor]

    def as_dict(self) -> dict[str, Any]:
        """Fields as plain values, without the images."""
        return {name: value for name, value in vars(self).items() if name != "shown"}


class TooFew(UserError):
    """The test split has too few images without a class for a distance of sets of images."""


def without(images: Tensor, segmenter: Segmenter, label: str, model: LatentModel) -> Tensor:
    """Select the images without any pixel of a class.

    Args:
        images: uint8 (n, C, H, W), with the model's grey levels.
        segmenter: Segmenter of the class.
        label: Name of the class.
        model: Model that the images are compared with.

    Raises:
        TooFew: There are fewer than `FEWEST` such images.
    """
    column = column_of_class(segmenter, label)
    seen = segment_bytes(segmenter, images, model.bins, model.device)[:, column].flatten(1).any(1)
    left = int((~seen).sum())
    if left < FEWEST:
        raise TooFew(
            f"{left} of {len(images)} real images are without a {label}, expected at least {FEWEST} for a "
            "distance: take a data set with a larger test split"
        )
    return images[~seen]


@torch.no_grad()
def clean(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    label: str,
    units: Sequence[int],
    real: Tensor,
    features: Callable[[Tensor], Tensor],
    sizes: Sequence[int] = (0, 1, 2, 5, 10, 20),
    shown: int = 12,
) -> Cleaning:
    """Ablate an artefact's units and compare the samples with real images without the artefact.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter that has the artefact as a class.
        codes: Codes of samples, other than those that the units were found on.
        layer: Layer of the units.
        label: Name of the artefact's class.
        units: Channels of the units, in the order of their ablation.
        real: uint8 (n, C, H, W), real images without the artefact; see `without`.
        features: Function from uint8 images to features (n, D), by which sets of images are compared.
        sizes: Numbers of ablated units, starting with 0.
        shown: Number of samples kept for pictures.
    """
    column = column_of_class(segmenter, label)
    channels = layer_of(model, codes.space, layer).channels
    used = [size for size in sizes if size <= len(units)]
    samples = []
    for size in used:
        change = [(layer, units_change(list(units[:size]), channels))] if size else []
        samples.append(seen_through(model, codes, change, lambda x: pixels.to_bytes(x, model.bins)))
    seen = [
        segment_bytes(segmenter, each, model.bins, model.device)[:, column].flatten(1).sum(1)
        for each in samples
    ]
    paired = min(len(real), len(codes))
    real_features = features(real[:paired])
    strongest = seen[0].argsort(descending=True, stable=True)[:shown]
    area = model.image_shape[1] * model.image_shape[2]
    return Cleaning(
        label=label,
        layer=layer,
        units=list(units[: max(used)]),
        sizes=used,
        images=[float((each > 0).double().mean()) for each in seen],
        area=[float(each.double().mean()) / area for each in seen],
        distance=[kernel_distance(real_features, features(each[:paired])) for each in samples],
        floor=kernel_distance(*real_features[: paired // 2 * 2].chunk(2)),
        real=paired,
        shown=[each[strongest] for each in samples],
    )
