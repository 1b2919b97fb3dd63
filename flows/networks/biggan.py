"""Class-conditional BigGAN networks (Brock et al. 2019, arXiv 1809.11096, appendix B)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, max_pool2d, relu
from torch.nn.utils.parametrizations import spectral_norm

from flows.networks.stylegan import with_deviation


def conv(inputs: int, outputs: int, size: int, bias: bool = True) -> nn.Module:
    """Return a convolution of spectral norm 1 that keeps the size, with orthogonal initialisation."""
    layer = nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias)
    nn.init.orthogonal_(layer.weight)
    return spectral_norm(layer, eps=1e-6)


def linear(inputs: int, outputs: int, bias: bool = True) -> nn.Module:
    """Return a linear layer of spectral norm 1 with orthogonal initialisation."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    nn.init.orthogonal_(layer.weight)
    return spectral_norm(layer, eps=1e-6)


class ConditionalBatchNorm(nn.Module):
    """Batch normalisation with scale and offset linear in a condition (batch, width)."""

    def __init__(self, channels: int, width: int):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale = linear(width, channels, bias=False)
        self.offset = linear(width, channels, bias=False)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        scale, offset = 1 + self.scale(condition), self.offset(condition)
        y: Tensor = self.norm(x) * scale[:, :, None, None] + offset[:, :, None, None]
        return y


class Attention(nn.Module):
    """Self-attention over pixels with a learned weight, initially 0 (SAGAN, arXiv 1805.08318)."""

    def __init__(self, channels: int):
        super().__init__()
        self.query = conv(channels, max(1, channels // 8), 1, bias=False)
        self.key = conv(channels, max(1, channels // 8), 1, bias=False)
        self.value = conv(channels, max(1, channels // 2), 1, bias=False)
        self.output = conv(max(1, channels // 2), channels, 1, bias=False)
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        query = self.query(x).flatten(2)
        key, value = (max_pool2d(part(x), 2).flatten(2) for part in (self.key, self.value))
        attention = (query.transpose(1, 2) @ key).softmax(2)
        attended = (value @ attention.transpose(1, 2)).unflatten(2, x.shape[2:])
        y: Tensor = x + self.weight * self.output(attended)
        return y


class UpBlock(nn.Module):
    """Conditional residual block that doubles the side."""

    def __init__(self, inputs: int, outputs: int, width: int):
        super().__init__()
        self.norm1, self.norm2 = ConditionalBatchNorm(inputs, width), ConditionalBatchNorm(outputs, width)
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.beside = conv(inputs, outputs, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        y = self.conv1(interpolate(relu(self.norm1(x, condition)), scale_factor=2))
        y = self.conv2(relu(self.norm2(y, condition)))
        shortcut = interpolate(self.beside(x), scale_factor=2)
        return y + shortcut


class BigGANGenerator(nn.Module):
    """Map z and a class vector to images in [−1, 1]; each block sees its own part of z and the class vector.

    Args:
        size: Dimension of z, a multiple of the number of blocks + 1.
        width: Dimension of a class vector.
        classes: Number of classes.
        channels: Number of channels of the maps of each size, coarse to fine.
        colours: Number of image channels.
        attention: Height of the maps with self-attention; 0 for none.
        first: Height and width of the first map.
    """

    def __init__(
        self,
        size: int,
        width: int,
        classes: int,
        channels: Sequence[int],
        colours: int,
        attention: int,
        first: tuple[int, int] = (4, 4),
    ):
        super().__init__()
        self.size, self.parts, self.first = size, len(channels), first
        part = size // self.parts
        self.classes = nn.Embedding(classes, width)
        nn.init.orthogonal_(self.classes.weight)
        self.start = linear(part, math.prod(first) * channels[0])
        pairs = list(zip(channels, channels[1:], strict=False))
        self.blocks = nn.ModuleList(UpBlock(before, after, part + width) for before, after in pairs)
        self.attention = nn.ModuleDict(
            {
                str(i): Attention(after)
                for i, (_, after) in enumerate(pairs)
                if first[0] * 2 ** (i + 1) == attention
            }
        )
        self.norm = nn.BatchNorm2d(channels[-1])
        self.to_colours = conv(channels[-1], colours, 3)

    def forward(self, z: Tensor, labels: Tensor) -> Tensor:
        return self.generate(torch.cat([z, self.classes(labels)], 1))

    def generate(self, code: Tensor) -> Tensor:
        """Generate images from concatenated z and class vectors, (batch, size + width)."""
        z, condition = code[:, : self.size], code[:, self.size :]
        own, *rest = z.chunk(self.parts, 1)
        x = self.start(own).view(len(z), -1, *self.first)
        for i, (block, part) in enumerate(zip(self.blocks, rest, strict=True)):
            x = block(x, torch.cat([part, condition], 1))
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
        image: Tensor = self.to_colours(relu(self.norm(x)))
        return image.tanh()


class DownBlock(nn.Module):
    """Residual block that optionally halves the side."""

    def __init__(self, inputs: int, outputs: int, halve: bool, first: bool = False):
        super().__init__()
        self.conv1, self.conv2 = conv(inputs, outputs, 3), conv(outputs, outputs, 3)
        self.beside = conv(inputs, outputs, 1) if inputs != outputs or halve else nn.Identity()
        self.halve, self.first = halve, first

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(relu(self.conv1(x if self.first else relu(x))))
        if self.halve:
            y, x = avg_pool2d(y, 2), avg_pool2d(x, 2)
        shortcut: Tensor = self.beside(x)
        return y + shortcut


class BigGANCritic(nn.Module):
    """Projection critic from images and their classes to one score each (Miyato and Koyama 2018).

    Args:
        classes: Number of classes.
        channels: Number of channels of the maps of each size, coarse to fine, as in the generator.
        colours: Number of image channels.
        attention: Height of the maps with self-attention, as in the generator; 0 for none.
        deviation: Whether to append the minibatch std (PGGAN, section 3) to the smallest maps.
        height: Height of the images in pixels.
    """

    def __init__(
        self,
        classes: int,
        channels: Sequence[int],
        colours: int,
        attention: int,
        deviation: bool,
        height: int,
    ):
        super().__init__()
        self.deviation = deviation
        widths = list(reversed(channels))
        pairs = list(zip([colours, *widths], widths, strict=False))
        self.blocks = nn.ModuleList(
            DownBlock(before + (deviation and i == len(pairs) - 1), after, i < len(pairs) - 1, first=i == 0)
            for i, (before, after) in enumerate(pairs)
        )
        self.attention = nn.ModuleDict(
            {
                str(i): Attention(after)
                for i, (_, after) in enumerate(pairs)
                if height // 2 ** (i + 1) == attention
            }
        )
        self.output = linear(widths[-1], 1)
        embedding = nn.Embedding(classes, widths[-1])
        nn.init.orthogonal_(embedding.weight)
        self.classes = spectral_norm(embedding, eps=1e-6)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the activations at all sizes, fine to coarse, for images in [−1, 1]."""
        x, activations = images, []
        for i, block in enumerate(self.blocks):
            last = self.deviation and i + 1 == len(self.blocks)
            x = block(with_deviation(x) if last else x)
            if str(i) in self.attention:
                x = self.attention[str(i)](x)
            activations.append(x)
        return activations

    def forward(self, images: Tensor, labels: Tensor) -> Tensor:
        """Return scores (batch,), larger for images that look real and like their class."""
        x = relu(self.features(images)[-1]).sum((2, 3))
        score: Tensor = self.output(x).squeeze(1) + (self.classes(labels) * x).sum(1)
        return score
