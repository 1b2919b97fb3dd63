"""What a search makes small: how far an image is from its target."""

from dataclasses import dataclass

from torch import Tensor

from flows.errors import Unsupported, UserError
from flows.metrics.perceptual import FeatureNetwork
from flows.models.base import HasFeatures, LatentModel


@dataclass(frozen=True)
class Distance:
    """pixel·|x̂ − x|² + feature·|F(x̂) − F(x)|² + perceptual·d(x̂, x), the squares as means, pixels in [−1, 1].

    The published methods judge by LPIPS or VGG, whose weights nobody may have at hand; pixels alone are the
    default here, and what PSNR rewards.

    Attributes:
        pixel: weight of the mean squared error.
        feature: weight of the model's own features F, for models that have some (LIA's and GANs' critics).
        perceptual: weight of the distance d of `network`.
        network: LPIPS or another; needed where `perceptual` is not 0.

    Raises:
        ValueError: a perceptual weight without a network.
    """

    pixel: float = 1.0
    feature: float = 0.0
    perceptual: float = 0.0
    network: FeatureNetwork | None = None

    def __post_init__(self) -> None:
        if self.perceptual and self.network is None:
            raise UserError("perceptual: a weight was given, but no network to measure by")

    def __call__(self, model: LatentModel, image: Tensor, target: Tensor) -> Tensor:
        """Of every image, (batch,); `image` is x̂ and `target` x, (batch, C, H, W) in [0, 1]."""
        loss = self.pixel * (2 * (image - target)).square().flatten(1).mean(1)
        if self.feature:
            if not isinstance(model, HasFeatures):
                raise Unsupported(f"{type(model).__name__} has no network of its own to compare images by")
            for a, b in zip(model.features(image), model.features(target), strict=True):
                loss = loss + self.feature * (a - b).square().flatten(1).mean(1)
        if self.perceptual and self.network is not None:
            network = self.network.to(image.device, image.dtype)
            loss = loss + self.perceptual * network.distance(image, target)
        return loss
