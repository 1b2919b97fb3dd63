"""StyleGAN (Karras et al. 2019, 2020, arXiv 1812.04948 and 1912.04958), without compiled operations."""

from collections.abc import Sequence
from typing import Literal

from flows.core.bounds import Bins, ImageShape, PositiveFloat, PositiveInt
from flows.models.styles import StyleGenerator, StyleModel, first_size
from flows.networks.stylegan import Blocks, Critic, Mapping, Synthesis

__all__ = ["StyleGAN"]


class StyleGAN(StyleModel):
    """GAN with a mapping network from z to w and modulated convolutions; noise is stored with the weights.

    The generator sums the colours of all sizes, the critic is residual by default (StyleGAN2, section 4.1).
    Noise strengths start at 0.

    Args:
        image_shape: Image shape (C, H, W). Halving both sides must give a first map of about 4×4: (4, 4) from
            (32, 32), (3, 4) from (48, 64).
        bins: Number of grey levels of the images.
        size: Dimension of z and w.
        channels: Number of channels of the layers at the first map, at twice its sides, …, up to the images.
        critic_channels: Number of channels of the critic's blocks at the same sizes; None uses `channels`.
        mapping_layers: Number of layers of the mapping network (8 in the paper, 2 in small models).
        mapping_multiplier: Factor on the learning rate of the mapping network.
        depth: Number of styled layers of each size but the first: 2 in the paper, or 1.
        start: Input of the first layer: a learned `constant`, or a `linear` function of w (as in PGGAN).
        critic_blocks: Kind of the critic's blocks: `residual` (StyleGAN2), `plain` (one strided convolution,
            faster) or `pooled` (PGGAN).
        grows: Whether the critic accepts images of every size, for progressive growing.
    """

    normalises_z, sampling_space = True, "w"

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        size: PositiveInt = 96,
        channels: Sequence[PositiveInt] = (96, 64, 48, 24),
        critic_channels: Sequence[PositiveInt] | None = None,
        mapping_layers: PositiveInt = 4,
        mapping_multiplier: PositiveFloat = 0.01,
        depth: PositiveInt = 2,
        start: Literal["constant", "linear"] = "constant",
        critic_blocks: Blocks = "residual",
        grows: bool = False,
    ):
        super().__init__()
        first = first_size(image_shape, channels, critic_channels or channels)
        generator = StyleGenerator(
            Mapping(size, mapping_layers, mapping_multiplier),
            Synthesis(channels, size, image_shape[0], depth=depth, start=start, first=first),
        )
        critic = Critic(critic_channels or channels, image_shape[0], grows, critic_blocks, first)
        self.assemble_styles(image_shape, bins, generator, critic, size, size)
