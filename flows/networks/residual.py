"""Residual networks for images with group norm, so that outputs do not depend on the batch or the rank."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, silu

from flows.core.bounds import ImageShape
from flows.errors import UserError
from flows.images import size_text

_GROUPS = 8


def check_channels(channels: list[int]) -> None:
    """Raise UserError unless `channels` has entries and each is a multiple of 8, as group norm needs."""
    if not channels or any(count % _GROUPS for count in channels):
        raise UserError(f"channels: expected multiples of {_GROUPS}, got {channels}")


class NormedBlock(nn.Module):
    """Pre-activation residual block x + conv(silu(norm(conv(silu(norm(x)))))) (He et al. 2016).

    Args:
        inputs, outputs: Number of channels, a multiple of 8.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first_norm = nn.GroupNorm(_GROUPS, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second_norm = nn.GroupNorm(_GROUPS, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(silu(self.first_norm(x)))
        total: Tensor = self.shortcut(x) + self.second(silu(self.second_norm(y)))
        return total


class Tower(nn.Module):
    """Map images to a vector: residual blocks, each at half the side of the previous, and a dense layer.

    Args:
        colours: Number of image channels.
        size: Height and width of the images in pixels, each at least 2**(len(channels) − 1).
        channels: Number of channels of each block, multiples of 8.
        hidden: Number of units of the dense layer over all positions.
        outputs: Length of the vector.

    Raises:
        UserError: If a number of channels is not a multiple of 8, or a side is halved below one pixel.
    """

    def __init__(self, colours: int, size: tuple[int, int], channels: list[int], hidden: int, outputs: int):
        super().__init__()
        check_channels(channels)
        halvings = len(channels) - 1
        places = (size[0] >> halvings) * (size[1] >> halvings)
        if not places:
            raise UserError(
                f"channels: images of {size_text(*size)} cannot be halved {halvings} times; give fewer"
            )
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1)
        pairs = zip([channels[0], *channels], channels, strict=False)
        self.blocks = nn.ModuleList(NormedBlock(before, after) for before, after in pairs)
        self.norm = nn.GroupNorm(_GROUPS, channels[-1])
        self.places = nn.Linear(channels[-1] * places, hidden)
        self.head = nn.Linear(hidden, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for i, block in enumerate(self.blocks):
            x = block(avg_pool2d(x, 2) if i else x)
        vector: Tensor = self.head(silu(self.places(silu(self.norm(x)).flatten(1))))
        return vector


class UNet(nn.Module):
    """U-Net from images to maps of the same size (Ronneberger et al. 2015, arXiv 1505.04597).

    Upsampling is nearest-neighbour.

    Args:
        image_shape: (C, H, W); H and W are multiples of 2**(len(channels) − 1).
        channels: Number of channels at full side, half, a quarter, …; multiples of 8.
        outputs: Number of maps.

    Raises:
        UserError: If a number of channels is not a multiple of 8, or a side cannot be halved exactly.
    """

    def __init__(self, image_shape: ImageShape, channels: list[int], outputs: int):
        super().__init__()
        check_channels(channels)
        colours, height, width = image_shape
        halvings = len(channels) - 1
        if height % 2**halvings or width % 2**halvings:
            raise UserError(
                f"channels: images of {size_text(height, width)} cannot be halved {halvings} times; give "
                f"fewer, or images whose sides {2**halvings} divides"
            )
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1)
        pairs = list(zip([channels[0], *channels], channels, strict=False))
        self.down = nn.ModuleList(NormedBlock(before, after) for before, after in pairs)
        upward = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(NormedBlock(below + skip, skip) for below, skip in upward)
        self.norm = nn.GroupNorm(_GROUPS, channels[0])
        self.head = nn.Conv2d(channels[0], outputs, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        skips = []
        for i, block in enumerate(self.down):
            x = block(avg_pool2d(x, 2) if i else x)
            skips.append(x)
        for block, skip in zip(self.up, skips[-2::-1], strict=True):
            x = nn.functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, skip], 1))
        maps: Tensor = self.head(silu(self.norm(x)))
        return maps
