"""Adapters for third-party networks: torchvision, timm, transformers, or any callable on images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows import images as pixels
from flows.data.decode import sides
from flows.errors import UserError
from flows.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from flows.semantics.base import Score
from flows.semantics.segmenter import one_hot

__all__ = ["ClassPredictor", "ClassSegmenter"]


class Prepared:
    """Network with its preprocessing of images, which returns logits.

    Args:
        network: Callable from normalised images (batch, 3, side, side) to logits: a tensor, a mapping with
            the key `out` (torchvision's segmenters) or an object with the attribute `logits` (transformers).
            Put it in eval mode.
        side: Side in pixels that images are resized to, or height and width; None does not resize.
        mean, deviation: Mean and std of each colour for the normalisation, pixels in [0, 1].
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        side: int | tuple[int, int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
    ):
        self.network, self.side, self.mean, self.deviation = network, side, mean, deviation

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images (batch, C, H, W) in [0, 1]; grey images are converted to RGB."""
        height, width = images.shape[2:] if self.side is None else sides(self.side)
        x = images.expand(-1, 3, -1, -1)
        if (height, width) != tuple(images.shape[2:]):
            x = pixels.to_rgb(images, height, width)
        answer = self.network(pixels.normalise(x, self.mean, self.deviation))
        if isinstance(answer, Tensor):
            return answer
        logits = answer["out"] if isinstance(answer, dict) and "out" in answer else answer.logits
        assert isinstance(logits, Tensor)
        return logits


class ClassPredictor:
    """Adapter of a classifier to `Predictor`, with one probability per class.

        weights = torchvision.models.ResNet18_Weights.DEFAULT
        network = torchvision.models.resnet18(weights=weights).eval()
        predictor = ClassPredictor(network, weights.meta["categories"], side=224)

    Args:
        network: Callable that returns logits (batch, classes); see `Prepared`.
        classes: Names of the classes.
        attribute: Name of the attribute that `exclusive` classes belong to; scores are named
            `attribute: class`.
        exclusive: Whether exactly one class is true (softmax). Otherwise every class is an attribute of its
            own (sigmoid).
        side, mean, deviation: Preprocessing of the images; see `Prepared`.
        name: Name for tables; empty uses the network's class name.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        classes: Sequence[str],
        attribute: str = "class",
        exclusive: bool = True,
        side: int | tuple[int, int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
        name: str = "",
    ):
        self.logits, self.exclusive = Prepared(network, side, mean, deviation), exclusive
        self.scores = tuple(
            Score(f"{attribute}: {label}", attribute, "category", True)
            if exclusive
            else Score(label, label, "attribute", True)
            for label in classes
        )
        self.name = name or type(network).__name__

    def predict(self, images: Tensor) -> Tensor:
        """Predict probabilities (batch, classes) for images (batch, C, H, W) in [0, 1], differentiable.

        Raises:
            UserError: The network returns another number of classes.
        """
        logits = self.logits(images)
        check_count(logits, len(self.scores))
        return logits.softmax(1) if self.exclusive else logits.sigmoid()


class ClassSegmenter:
    """Adapter of a network that classifies pixels to `Segmenter`.

        weights = torchvision.models.segmentation.LRASPP_MobileNet_V3_Large_Weights.DEFAULT
        network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights=weights).eval()
        segmenter = ClassSegmenter(network, weights.meta["categories"], side=520)

    Args:
        network: Callable that returns logits (batch, classes, h, w), which are resized to the images' size;
            see `Prepared`.
        classes: Names of the classes; a pixel belongs to the most probable one.
        side, mean, deviation: Preprocessing of the images; see `Prepared`.
        name: Name for tables; empty uses the network's class name.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        classes: Sequence[str],
        side: int | tuple[int, int] | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
        name: str = "",
    ):
        self.logits = Prepared(network, side, mean, deviation)
        self.classes = tuple(classes)
        self.name = name or type(network).__name__

    def probabilities(self, images: Tensor) -> Tensor:
        """Class probabilities (batch, classes, H, W) of images (batch, C, H, W) in [0, 1], differentiable.

        Raises:
            UserError: The network returns another number of classes.
        """
        logits = self.logits(images)
        check_count(logits, len(self.classes))
        sized = interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
        return sized.softmax(1)

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """Class masks, bool (batch, classes, H, W), of images (batch, C, H, W) in [0, 1]."""
        return one_hot(self.probabilities(images).argmax(1), len(self.classes))


def check_count(logits: Tensor, expected: int) -> None:
    """Raise UserError if a network does not return the expected number of classes."""
    if logits.shape[1] != expected:
        raise UserError(f"expected a network with {expected} classes, one per name, got {logits.shape[1]}")
