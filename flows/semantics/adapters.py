"""Other people's networks as judges: torchvision's, timm's, transformers', or any callable on images."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows import images as pixels
from flows.errors import UserError
from flows.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from flows.semantics.base import Score
from flows.semantics.segmenter import one_hot


class Prepared:
    """Images as a network wants them, and its answer as logits.

    Args:
        network: (batch, 3, side, side), normalised, to logits: a tensor, a mapping with `out` (torchvision's
            segmenters) or something with `logits` (transformers). Put it in eval mode.
        side: of the images it was trained on; None leaves them as they are.
        mean, deviation: of its colours, in [0, 1].
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        side: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
    ):
        self.network, self.side, self.mean, self.deviation = network, side, mean, deviation

    def __call__(self, images: Tensor) -> Tensor:
        """Logits of images (batch, C, H, W) in [0, 1]; grey ones become RGB."""
        x = images.expand(-1, 3, -1, -1) if self.side is None else pixels.to_square_rgb(images, self.side)
        answer = self.network(pixels.normalise(x, self.mean, self.deviation))
        if isinstance(answer, Tensor):
            return answer
        logits = answer["out"] if isinstance(answer, dict) and "out" in answer else answer.logits
        assert isinstance(logits, Tensor)
        return logits


class ClassPredictor:
    """A classifier as a `Predictor`: one probability for each class.

        weights = torchvision.models.ResNet18_Weights.DEFAULT
        network = torchvision.models.resnet18(weights=weights).eval()
        judge = ClassPredictor(network, weights.meta["categories"], side=224)

    Args:
        network: see `Prepared`; logits (batch, classes).
        classes: their names.
        attribute: what they are classes of; for `exclusive` ones, `attribute: class` names a score.
        exclusive: one of them is true (softmax); otherwise each by itself (sigmoid), an attribute of its own.
        side, mean, deviation: see `Prepared`.
        name: for tables.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        classes: Sequence[str],
        attribute: str = "class",
        exclusive: bool = True,
        side: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
        name: str = "",
    ):
        self.logits, self.exclusive = Prepared(network, side, mean, deviation), exclusive
        self.scores = tuple(
            Score(f"{attribute}: {each}", attribute, "category", True)
            if exclusive
            else Score(each, each, "attribute", True)
            for each in classes
        )
        self.name = name or type(network).__name__

    @torch.no_grad()
    def predict(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to probabilities (batch, classes).

        Raises:
            ValueError: the network answers with another number of classes.
        """
        logits = self.logits(images)
        check_count(logits, len(self.scores))
        return logits.softmax(1) if self.exclusive else logits.sigmoid()


class ClassSegmenter:
    """A network that classifies pixels as a `Segmenter`.

        network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(weights="DEFAULT").eval()
        judge = ClassSegmenter(network, weights.meta["categories"], side=520)

    Args:
        network: see `Prepared`; logits (batch, classes, h, w), brought to the images' size.
        classes: their names; a pixel belongs to the most probable one.
        side, mean, deviation: see `Prepared`.
        name: for tables.
    """

    def __init__(
        self,
        network: Callable[[Tensor], Any],
        classes: Sequence[str],
        side: int | None = None,
        mean: Sequence[float] = IMAGENET_MEAN,
        deviation: Sequence[float] = IMAGENET_DEVIATION,
        name: str = "",
    ):
        self.logits = Prepared(network, side, mean, deviation)
        self.classes = tuple(classes)
        self.name = name or type(network).__name__

    def probabilities(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to (batch, classes, H, W) in [0, 1], differentiable.

        Raises:
            ValueError: the network answers with another number of classes.
        """
        logits = self.logits(images)
        check_count(logits, len(self.classes))
        sized = interpolate(logits, images.shape[2:], mode="bilinear", align_corners=False)
        return sized.softmax(1)

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """Images (batch, C, H, W) in [0, 1] to bool (batch, classes, H, W)."""
        return one_hot(self.probabilities(images).argmax(1), len(self.classes))


def check_count(logits: Tensor, expected: int) -> None:
    """Raise ValueError where a network has another number of classes."""
    if logits.shape[1] != expected:
        raise UserError(f"the network tells {logits.shape[1]} classes, {expected} names were given")
