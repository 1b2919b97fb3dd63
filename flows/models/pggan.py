"""PGGAN: progressive growing of GANs (Karras et al. 2018, arXiv 1710.10196)."""

from collections.abc import Sequence

from torch import Tensor

from flows.core.bounds import Bins, ImageShape, PositiveInt
from flows.models.gan import GAN
from flows.models.styles import first_size
from flows.networks.pggan import PGGANGenerator
from flows.networks.stylegan import Critic

__all__ = ["PGGAN"]


class PGGAN(GAN):
    """GAN whose generator and critic grow together from 4×4; pixel norm and equalised learning rates.

    Train it with the objective `Adversarial`, loss `wgan-gp`, a drift term and `growing`.

    Args:
        image_shape: Image shape (C, H, W). Halving both sides must give a first map of about 4×4: (4, 4) from
            (32, 32), (3, 4) from (48, 64).
        bins: Number of grey levels of the images.
        size: Dimension of z (512 in the paper).
        channels: Number of channels of the blocks at the first map, at twice its sides, …, up to the images.
        critic_channels: Number of channels of the critic's blocks; None uses `channels`.
    """

    normalises_z = True

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        size: PositiveInt = 96,
        channels: Sequence[PositiveInt] = (96, 64, 48, 24),
        critic_channels: Sequence[PositiveInt] | None = None,
    ):
        super().__init__()
        first = first_size(image_shape, channels, critic_channels or channels)
        generator = PGGANGenerator(size, channels, image_shape[0], first)
        critic = Critic(critic_channels or channels, image_shape[0], grows=True, blocks="pooled", last=first)
        self.assemble(image_shape, bins, generator, critic, size)

    def synthesise(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        image: Tensor = self.generator(code)
        return image
