"""DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434)."""

from collections.abc import Sequence

from torch import Tensor

from flows.core.bounds import Bins, ImageShape, PositiveInt
from flows.models.gan import GAN
from flows.models.styles import first_size
from flows.networks.dcgan import DCGANCritic, DCGANGenerator

__all__ = ["DCGAN"]


class DCGAN(GAN):
    """GAN of transposed convolutions against strided convolutions, both with batch norm.

    Args:
        image_shape: Image shape (C, H, W). Halving both sides must give a first map of about 4×4: (4, 4) from
            (32, 32), (3, 4) from (48, 64).
        bins: Number of grey levels of the images.
        size: Dimension of z, which is standard normal (100 in the paper).
        channels: Number of channels of the layers, in generator and critic: of the first map, of twice its
            sides, …, up to half the image side.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        size: PositiveInt = 100,
        channels: Sequence[PositiveInt] = (128, 64, 32),
    ):
        super().__init__()
        first = first_size(image_shape, channels, halved=1)
        generator = DCGANGenerator(size, channels, image_shape[0], first)
        self.assemble(image_shape, bins, generator, DCGANCritic(channels, image_shape[0], first), size)

    def synthesise(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        image: Tensor = self.generator(code)
        return image
