"""PGGAN: progressive growing of GANs (Karras et al. 2018, arXiv 1710.10196)."""

from collections.abc import Sequence

from torch import Tensor

from flows.checks import check_positive
from flows.models.gan import GAN
from flows.models.styles import check_sizes
from flows.networks.pggan import PGGANGenerator
from flows.networks.stylegan import Critic


class PGGAN(GAN):
    """Generator and critic grow together, from 4×4 on; pixel norm, equalised learning rates.

    The objective that goes with it is `Adversarial` with loss `wgan-gp`, a drift and `growing`.

    Args:
        image_shape: (C, H, W), H = W a power of two from 8 on.
        bins: grey levels of the images.
        size: of z (512 in the paper).
        channels: of the blocks at 4×4, 8×8, … up to the images' side.
        critic_channels: of the critic; None takes `channels`.
    """

    normalises_z = True

    def __init__(
        self,
        image_shape: Sequence[int],
        bins: int = 256,
        size: int = 96,
        channels: Sequence[int] = (96, 64, 48, 24),
        critic_channels: Sequence[int] | None = None,
    ):
        super().__init__()
        check_positive(size=size)
        check_sizes(image_shape, channels, critic_channels or channels)
        generator = PGGANGenerator(size, channels, image_shape[0])
        critic = Critic(critic_channels or channels, image_shape[0], grows=True, blocks="pooled")
        self.assemble(image_shape, bins, generator, critic, size)

    def render(self, code: Tensor, space: str, labels: Tensor | None) -> Tensor:
        image: Tensor = self.generator(code)
        return image
