"""LIA's encoders, which map images to w."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu

from flows.core.torch_internals import BatchNorm
from flows.networks.equalised import LEAKY_GAIN, EqualisedConv2d, EqualisedLinear
from flows.networks.stylegan import PlainBlock, activate, begin_halved


class OffsetBatchNorm(BatchNorm):
    """Batch normalisation of maps or vectors with a learned offset and no scale."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=False)
        self.offset = nn.Parameter(torch.zeros(channels))

    def _check_input_dim(self, input: Tensor) -> None:
        return  # maps and vectors are accepted

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) + self.offset.view(-1, *[1] * (input.dim() - 2))


class EncoderBlock(nn.Module):
    """Residual block at half the side: average pooling, two convolutions and a shortcut (ResNet v1)."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        middle = min(inputs, outputs)
        self.first = nn.Conv2d(inputs, middle, 3, padding=1, bias=False)
        self.first_norm = OffsetBatchNorm(middle)
        self.second = nn.Conv2d(middle, outputs, 3, padding=1, bias=False)
        self.second_norm = OffsetBatchNorm(outputs)
        self.shortcut = None
        if inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, bias=False), OffsetBatchNorm(outputs), nn.LeakyReLU(0.2)
            )

    def forward(self, x: Tensor) -> Tensor:
        x = avg_pool2d(x, 2)
        y = leaky_relu(self.first_norm(self.first(x)), 0.2)
        y = leaky_relu(self.second_norm(self.second(y)), 0.2)
        return y + (x if self.shortcut is None else self.shortcut(x))


class ResidualEncoder(nn.Module):
    """Map images in [−1, 1] to w, as in LIA's released code (`networks_encoder.py`).

    Args:
        channels: Number of channels of the stem and of each block, down to the last map.
        width: Dimension of w.
        colours: Number of image channels.
        last: Height and width of the last map.
    """

    def __init__(self, channels: Sequence[int], width: int, colours: int, last: tuple[int, int] = (4, 4)):
        super().__init__()
        self.stem = nn.Conv2d(colours, channels[0], 3, padding=1, bias=False)
        self.stem_norm = OffsetBatchNorm(channels[0])
        pairs = zip(channels, channels[1:], strict=False)
        self.blocks = nn.ModuleList(EncoderBlock(before, after) for before, after in pairs)
        self.head = nn.Linear(math.prod(last) * channels[-1], width, bias=False)
        self.head_norm = OffsetBatchNorm(width)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.normal_(part.weight, std=0.02)

    def forward(self, images: Tensor) -> Tensor:
        x = leaky_relu(self.stem_norm(self.stem(images)), 0.2)
        for block in self.blocks:
            x = block(x)
        return self.head_norm(self.head(x.flatten(1)))


class PlainEncoder(nn.Module):
    """Map images in [−1, 1] to w by strided convolutions with equalised learning rates, without batch norm.

    Args:
        channels: Number of channels of the stem and of each block, down to the last map.
        width: Dimension of w.
        colours: Number of image channels.
        last: Height and width of the last map.
    """

    def __init__(self, channels: Sequence[int], width: int, colours: int, last: tuple[int, int] = (4, 4)):
        super().__init__()
        self.stem = EqualisedConv2d(colours, channels[0], 1, LEAKY_GAIN)
        pairs = zip(channels, channels[1:], strict=False)
        self.blocks = nn.ModuleList(PlainBlock(before, after) for before, after in pairs)
        self.hidden = EqualisedLinear(math.prod(last) * channels[-1], 256, LEAKY_GAIN)
        self.head = EqualisedLinear(256, width)

    def forward(self, images: Tensor) -> Tensor:
        x = activate(self.stem(images))
        for block in self.blocks:
            x = block(x)
        w: Tensor = self.head(activate(self.hidden(x.flatten(1))))
        return w


class MapEncoder(nn.Module):
    """Convolutional encoder from images in [−1, 1] to a spatial code; each position sees its surroundings.

    Args:
        channels: Number of channels of the stem and of each block, down to the size of the code.
        depth: Number of channels of the code.
        colours: Number of image channels.
    """

    def __init__(self, channels: Sequence[int], depth: int, colours: int):
        super().__init__()
        self.stem = EqualisedConv2d(colours, channels[0], 1, LEAKY_GAIN)
        pairs = zip(channels, channels[1:], strict=False)
        self.blocks = nn.ModuleList(PlainBlock(before, after) for before, after in pairs)
        self.hidden = EqualisedConv2d(channels[-1], channels[-1], 3, LEAKY_GAIN)
        self.head = EqualisedConv2d(channels[-1], depth, 1)

    def begin_as(self, small: "MapEncoder") -> None:
        """Initialise from an encoder of half the side, applied to means of 2×2 pixels; see `begin_halved`."""
        begin_halved(self.stem, self.blocks, small.stem, small.blocks)
        for name in ("hidden", "head"):
            getattr(self, name).load_state_dict(getattr(small, name).state_dict())

    def forward(self, images: Tensor) -> Tensor:
        x = activate(self.stem(images))
        for block in self.blocks:
            x = block(x)
        w: Tensor = self.head(activate(self.hidden(x)))
        return w.flatten(1)
