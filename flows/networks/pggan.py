"""PGGAN's growing generator (Karras et al. 2018, arXiv 1710.10196, table 2)."""

import math
from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn.functional import interpolate

from flows.networks.equalised import LEAKY_GAIN, EqualisedConv2d, EqualisedLinear
from flows.networks.growing import Growing
from flows.networks.stylegan import activate, pixel_norm


class PGGANGenerator(Growing):
    """Map z to images, with nearest-neighbour upsampling.

    z and the channels of every pixel are normalised to mean square 1.

    Args:
        size: Dimension of z.
        channels: Number of channels of the blocks, coarse to fine; one entry per size.
        colours: Number of image channels.
        first: Height and width of the first map.
    """

    def __init__(self, size: int, channels: Sequence[int], colours: int = 3, first: tuple[int, int] = (4, 4)):
        super().__init__(len(channels))
        self.first = first
        # The gain √2/4 of the released code.
        self.start = EqualisedLinear(size, math.prod(first) * channels[0], LEAKY_GAIN / 4)
        self.layers = nn.ModuleList([EqualisedConv2d(channels[0], channels[0], 3, LEAKY_GAIN)])
        self.to_colours = nn.ModuleList([EqualisedConv2d(channels[0], colours, 1)])
        for before, after in zip(channels, channels[1:], strict=False):
            self.layers.append(EqualisedConv2d(before, after, 3, LEAKY_GAIN))
            self.layers.append(EqualisedConv2d(after, after, 3, LEAKY_GAIN))
            self.to_colours.append(EqualisedConv2d(after, colours, 1))

    def forward(self, z: Tensor) -> Tensor:
        """Generate images, approximately in [−1, 1], at the current size."""
        sizes, share = self.grown
        x = pixel_norm(activate(self.start(pixel_norm(z)).view(len(z), -1, *self.first)))
        x = pixel_norm(activate(self.layers[0](x)))
        before = x
        for i in range(1, sizes):
            before = x
            x = interpolate(x, scale_factor=2)
            for layer in (self.layers[2 * i - 1], self.layers[2 * i]):
                x = pixel_norm(activate(layer(x)))
        image: Tensor = self.to_colours[sizes - 1](x)
        if sizes > 1 and share < 1:
            coarse = interpolate(self.to_colours[sizes - 2](before), scale_factor=2)
            image = coarse + share * (image - coarse)
        return image
