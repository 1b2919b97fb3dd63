"""Artefacts: the units that draw what nobody wants, and whether samples are better without them.

Bau et al. 2019, arXiv 1811.10597, section 4.3.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.dissection.causal import seen_through, units_change
from flows.dissection.instrument import layers_of
from flows.errors import UserError
from flows.metrics.perceptual import kernel_distance
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter, segment_bytes

FEWEST = 100
"""Real images without the artefact, below which no distance is taken."""


@dataclass(frozen=True)
class Cleaning:
    """Samples with more and more of an artefact's units switched off.

    Attributes:
        label: name of the artefact's class.
        layer: of the units.
        units: in their order.
        sizes: numbers of units that are off, from 0.
        images: for each number, the share of samples in which any of the artefact is seen.
        area: for each number, the artefact's share of all pixels.
        distance: for each number, KID to real images without the artefact.
        floor: KID between two halves of these.
        real: how many they are, and as many samples.
        shown: for each number, uint8 (n, C, H, W) of the same samples, those that have most of it.
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
        """Plain values."""
        return {name: value for name, value in vars(self).items() if name != "shown"}


def without(images: Tensor, segmenter: Segmenter, label: str, model: LatentModel) -> Tensor:
    """Those of uint8 images (n, C, H, W), of a model's grey levels, in which nothing of a class is seen.

    Raises:
        ValueError: hardly any is without it.
    """
    column = list(segmenter.classes).index(label)
    seen = segment_bytes(segmenter, images, model.bins, model.device)[:, column].flatten(1).any(1)
    left = int((~seen).sum())
    if left < FEWEST:
        raise UserError(
            f"{left} of {len(images)} real images are without a {label}, a distance to fewer than {FEWEST} "
            "says nothing: take a data set with a larger test split"
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
    """Switch an artefact's units off, and compare what is drawn with images that are without it.

    Args:
        model: in eval mode.
        segmenter: knows the artefact as a class.
        codes: Codes of samples that no unit was found on.
        layer: of the units.
        label: of the artefact.
        units: in their order.
        real: uint8 (n, C, H, W) without it; see `without`.
        features: of uint8 images, (n, D), by which sets are compared.
        sizes: numbers of units switched off, 0 first.
        shown: samples kept for pictures.
    """
    column = list(segmenter.classes).index(label)
    channels = layers_of(model, codes.space)[layer].channels
    tried = [size for size in sizes if size <= len(units)]
    drawn = []
    for size in tried:
        change = [(layer, units_change(list(units[:size]), channels))] if size else []
        drawn.append(seen_through(model, codes, change, lambda x: pixels.to_bytes(x, model.bins)))
    seen = [
        segment_bytes(segmenter, each, model.bins, model.device)[:, column].flatten(1).sum(1)
        for each in drawn
    ]
    paired = min(len(real), len(codes))
    wanted = features(real[:paired])
    most = seen[0].argsort(descending=True, stable=True)[:shown]
    area = model.image_shape[1] * model.image_shape[2]
    return Cleaning(
        label, layer, list(units[: max(tried)]), tried,
        images=[float((each > 0).double().mean()) for each in seen],
        area=[float(each.double().mean()) / area for each in seen],
        distance=[kernel_distance(wanted, features(each[:paired])) for each in drawn],
        floor=kernel_distance(*wanted[: paired // 2 * 2].chunk(2)),
        real=paired,
        shown=[each[most] for each in drawn],
    )  # fmt: skip
