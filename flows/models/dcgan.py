"""DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434)."""

from collections.abc import Sequence

from torch import Tensor

from flows.core.bounds import Bins, ImageShape, PositiveInt
from flows.models.gan import GAN
from flows.models.styles import check_sizes
from flows.networks.dcgan import DCGANCritic, DCGANGenerator

__all__ = ["DCGAN"]


class DCGAN(GAN):
    """GAN of transposed convolutions against strided convolutions, both with batch norm.

    Args:
        image_shape: Image shape (C, H, W), H = W a power of two, at least 8.
        bins: Number of grey levels of the images.
        size: Dimension of z, which is standard normal (100 in the paper).
        channels: Number of channels of the 4×4, 8×8, … layers, up to half the image side, in generator and
            critic.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        size: PositiveInt = 100,
        channels: Sequence[PositiveInt] = (128, 64, 32),
    ):
        super().__init__()
        check_sizes(image_shape, channels, halved=1)
        generator = DCGANGenerator(size, channels, image_shape[0])
        self.assemble(image_shape, bins, generator, DCGANCritic(channels, image_shape[0]), size)

    def synthesise(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        image: Tensor = self.generator(code)
        return image
