"""Loss of inversion by optimisation: the distance of an image from its target."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.errors import Unsupported, UserError
from flows.metrics.perceptual import FeatureNetwork
from flows.models.base import HasFeatures, LatentModel

__all__ = ["Distance"]


@dataclass(frozen=True)
class Distance:
    """Weighted sum pixel·|x̂ − x|² + feature·|F(x̂) − F(x)|² + perceptual·d(x̂, x).

    Squares are means, pixels are in [−1, 1]. The published methods use LPIPS or VGG, whose weights may not be
    available; the default is the pixel term alone, which is what PSNR measures.

    Attributes:
        pixel: Weight of the mean squared error.
        feature: Weight of the term of the model's own features F (critics of LIA and the GANs).
        perceptual: Weight of the distance d of `network`.
        network: Network of the distance d, for example LPIPS; required unless `perceptual` is 0.

    Raises:
        UserError: `perceptual` is not 0, and there is no network.
    """

    pixel: float = 1.0
    feature: float = 0.0
    perceptual: float = 0.0
    network: FeatureNetwork | None = None

    def __post_init__(self) -> None:
        if self.perceptual and self.network is None:
            raise UserError("perceptual: expected a network for a weight other than 0, got None")

    @property
    def text(self) -> str:
        """Text for tables: the terms with their weights and the network of the perceptual distance."""
        network = "" if self.network is None else self.network.name
        weights = {"pixels": self.pixel, "own features": self.feature, network: self.perceptual}
        return " + ".join(
            name if weight == 1 else f"{weight:g} · {name}" for name, weight in weights.items() if weight
        )

    def __call__(self, model: LatentModel, image: Tensor, target: Tensor) -> Tensor:
        """Compute the distance of each image: (batch,); see `parts`."""
        rest, perceptual = self.parts(model, image, target)
        return rest + self.perceptual * perceptual

    def parts(self, model: LatentModel, image: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Compute pixel and feature terms, weighted, and d without its weight, of each image: (batch,) each.

        Args:
            model: Model whose features F are used.
            image: (batch, C, H, W), x̂ in [0, 1].
            target: (batch, C, H, W), x in [0, 1].

        Raises:
            Unsupported: `feature` is not 0, and the model has no features.
        """
        loss = self.pixel * (2 * (image - target)).square().flatten(1).mean(1)
        if self.feature:
            if not isinstance(model, HasFeatures):
                raise Unsupported(f"{type(model).__name__} has no features of its own: set feature to 0")
            for a, b in zip(model.features(image), model.features(target), strict=True):
                loss = loss + self.feature * (a - b).square().flatten(1).mean(1)
        if not self.perceptual or self.network is None:
            return loss, torch.zeros_like(loss)
        network = self.network.to(image.device, image.dtype)
        return loss, network.distance(image, target)
