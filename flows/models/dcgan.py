"""DCGAN (Radford, Metz and Chintala 2016, arXiv 1511.06434)."""

from collections.abc import Sequence

from torch import Tensor

from flows.checks import check_positive
from flows.models.gan import GAN
from flows.models.styles import check_sizes
from flows.networks.dcgan import DCGANCritic, DCGANGenerator


class DCGAN(GAN):
    """Transposed convolutions with batch norm against strided ones; z is a standard normal.

    Args:
        image_shape: (C, H, W), H = W a power of two from 8 on.
        bins: grey levels of the images.
        size: of z (100 in the paper).
        channels: of the layers at 4×4, 8×8, … up to half of the images' side; the critic has the same.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        bins: int = 256,
        size: int = 100,
        channels: Sequence[int] = (128, 64, 32),
    ):
        super().__init__()
        check_positive(size=size)
        check_sizes((image_shape[0], image_shape[1] // 2, image_shape[2] // 2), channels)
        generator = DCGANGenerator(size, channels, image_shape[0])
        self.assemble(image_shape, bins, generator, DCGANCritic(channels, image_shape[0]), size)

    def render(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        image: Tensor = self.generator(code)
        return image
