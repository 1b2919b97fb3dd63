"""Residual blocks with group norms, for networks that look at images: the same for any batch, on any rank."""

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, silu


class NormedBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm(x)))))), the first version with pre-activation (He et al. 2016).

    Args:
        inputs, outputs: channels; each divides by 8.
    """

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first_norm = nn.GroupNorm(8, inputs)
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second_norm = nn.GroupNorm(8, outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(silu(self.first_norm(x)))
        total: Tensor = self.shortcut(x) + self.second(silu(self.second_norm(y)))
        return total


class Tower(nn.Module):
    """Images to a vector: blocks, each at half the side of the one before, and a layer over all places.

    Args:
        colours: of the images.
        side: of the images, at least 2**(len(channels) − 1).
        channels: of every block; each divides by 8.
        hidden: units of the layer over all places.
        outputs: length of the vector.
    """

    def __init__(self, colours: int, side: int, channels: list[int], hidden: int, outputs: int):
        super().__init__()
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1)
        pairs = zip([channels[0], *channels], channels, strict=False)
        self.blocks = nn.ModuleList(NormedBlock(before, after) for before, after in pairs)
        last = side // 2 ** (len(channels) - 1)
        self.norm = nn.GroupNorm(8, channels[-1])
        self.places = nn.Linear(channels[-1] * last * last, hidden)
        self.head = nn.Linear(hidden, outputs)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        for i, block in enumerate(self.blocks):
            x = block(avg_pool2d(x, 2) if i else x)
        vector: Tensor = self.head(silu(self.places(silu(self.norm(x)).flatten(1))))
        return vector


class UNet(nn.Module):
    """Images to maps of the same size (Ronneberger et al. 2015, arXiv 1505.04597), upsampled by neighbours.

    Args:
        colours: of the images.
        channels: at full side, half, a quarter …; each divides by 8.
        outputs: maps.
    """

    def __init__(self, colours: int, channels: list[int], outputs: int):
        super().__init__()
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1)
        pairs = list(zip([channels[0], *channels], channels, strict=False))
        self.down = nn.ModuleList(NormedBlock(before, after) for before, after in pairs)
        upward = list(zip(channels[:0:-1], channels[-2::-1], strict=True))
        self.up = nn.ModuleList(NormedBlock(below + beside, beside) for below, beside in upward)
        self.norm = nn.GroupNorm(8, channels[0])
        self.head = nn.Conv2d(channels[0], outputs, 1)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x.contiguous(memory_format=torch.channels_last))
        kept = []
        for i, block in enumerate(self.down):
            x = block(avg_pool2d(x, 2) if i else x)
            kept.append(x)
        for block, beside in zip(self.up, kept[-2::-1], strict=True):
            x = nn.functional.interpolate(x, scale_factor=2.0)
            x = block(torch.cat([x, beside], 1))
        maps: Tensor = self.head(silu(self.norm(x)))
        return maps
