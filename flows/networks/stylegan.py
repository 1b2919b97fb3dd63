"""StyleGAN networks (Karras et al. 2019, 2020, arXiv 1812.04948 and 1912.04958) in plain PyTorch."""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, leaky_relu

from flows.errors import UserError
from flows.images import size_text
from flows.networks.equalised import LEAKY_GAIN, EqualisedConv2d, EqualisedLinear
from flows.networks.growing import Growing


def activate(x: Tensor) -> Tensor:
    """Apply a leaky ReLU of slope 0.2."""
    return leaky_relu(x, 0.2)


class Mapping(nn.Module):
    """Mapping network, a perceptron from z to w; z is first normalised to mean square 1.

    Args:
        size: Dimension of z, of w and of the hidden layers.
        layers: Number of layers (8 in StyleGAN, 2 in small models).
        multiplier: Factor on the learning rate.
    """

    def __init__(self, size: int, layers: int, multiplier: float = 0.01):
        super().__init__()
        self.layers = nn.ModuleList(
            EqualisedLinear(size, size, LEAKY_GAIN, multiplier) for _ in range(layers)
        )

    def forward(self, z: Tensor) -> Tensor:
        w = pixel_norm(z)
        for layer in self.layers:
            w = activate(layer(w))
        return w


def pixel_norm(x: Tensor) -> Tensor:
    """Divide by the root mean square over the channels (axis 1)."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class ModulatedConv2d(nn.Module):
    """Convolution with inputs scaled by a style and outputs normalised to variance 1.

    Scaling activations before and after is equivalent to scaling the weights for each image (StyleGAN2,
    equations 1–3), and one ordinary convolution serves the whole batch.

    Args:
        inputs, outputs: Number of channels.
        size: Side of the kernel; odd, or 4 with `double`.
        width: Dimension of w; the style is an affine function of w.
        demodulate: Whether to normalise the outputs to variance 1; not for colours.
        double: Whether to double the side by a transposed convolution of stride 2; every output sees 2×2
            inputs.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, width: int, demodulate: bool = True, double: bool = False
    ):
        super().__init__()
        self.style = EqualisedLinear(width, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.phases = 4 if double else 1  # each output sees 1/phases of the kernel
        self.scale = math.sqrt(self.phases / (inputs * size**2))
        self.demodulate, self.doubles = demodulate, double

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        style, weight = self.style(w), self.weight * self.scale
        x = x * style[:, :, None, None]
        if self.doubles:
            y = conv_transpose2d(x, weight.transpose(0, 1), stride=2, padding=1)
        else:
            y = conv2d(x, weight, padding=weight.shape[-1] // 2)
        if not self.demodulate:
            return y
        power = style.square() @ weight.square().sum((2, 3)).T / self.phases
        return y * (power + 1e-8).rsqrt()[:, :, None, None]


class StyledLayer(nn.Module):
    """Modulated convolution, noise, bias, leaky ReLU.

    The noise is a stored buffer, so that the generator is a function of its codes. `strength` starts at 0.

    Args:
        inputs, outputs: Number of channels.
        width: Dimension of w.
        size: Height and width of the output in pixels.
        double: Whether the input has half these sides.
    """

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, width: int, size: tuple[int, int], double: bool):
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, outputs, 4 if double else 3, width, double=double)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, *size))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.convolution(x, w)
        x = x + self.strength * (self.noise if noise is None else noise)
        return activate(x + self.bias[:, None, None]) * LEAKY_GAIN


def double(x: Tensor) -> Tensor:
    """Upsample to twice the side, bilinear."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def larger(image: Tensor, share: float) -> Tensor:
    """Upsample to twice the side: from nearest, as for real images, to bilinear as the new size fades in."""
    if share == 1:
        return double(image)
    return torch.lerp(interpolate(image, scale_factor=2), double(image), share)


StartName = Literal["constant", "linear", "map"]


def map_channels(width: int, size: tuple[int, int]) -> int:
    """Return the number of channels of a code of `width` as a map of a size (height, width).

    Raises:
        UserError: `width` is not divisible by the number of positions.
    """
    places = math.prod(size)
    if width % places:
        raise UserError(
            f"start map: a map of {size_text(*size)} needs a code size divisible by {places}, got {width}"
        )
    return width // places


class Synthesis(Growing):
    """Synthesis network from w, one per layer, to images: styled layers and a sum of colours over all sizes.

    Args:
        channels: Number of channels of each size, from `first` on; the sides double with each entry.
        width: Dimension of w.
        colours: Number of image channels.
        tanh: Whether to end with tanh (LIA's decoder); the output is linear otherwise.
        depth: Number of styled layers of each size, 2 in the paper, or 1; the first size has one.
        start: Input of the first layer: a learned `constant` (StyleGAN); a `linear` function of the first w
            (as in PGGAN); or that w itself as a `map` of the size `first`, projected to the channels of the
            layer, so that each part of the code has a position in the image.
        first: Height and width of the first layer in pixels.
        skipped: Number of sizes before `first` that the critic has and this network leaves out.

    Raises:
        UserError: `start` is `map`, and w is not a map of the size `first`.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        colours: int = 3,
        tanh: bool = False,
        depth: int = 2,
        start: StartName = "constant",
        first: tuple[int, int] = (4, 4),
        skipped: int = 0,
    ):
        super().__init__(skipped + len(channels))
        self.skipped, self.first = skipped, first
        wide = channels[0]
        constant = torch.randn(1, wide, *first)
        self.start = nn.Parameter(constant) if start == "constant" else None
        self.linear = EqualisedLinear(width, math.prod(first) * wide) if start == "linear" else None
        self.from_map = None
        if start == "map":
            self.from_map = EqualisedConv2d(map_channels(width, first), wide, 1)
        self.layers = nn.ModuleList([StyledLayer(wide, wide, width, first, double=False)])
        self.to_colours = nn.ModuleList([ModulatedConv2d(wide, colours, 1, width, demodulate=False)])
        for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            size = first[0] * 2 ** (i + 1), first[1] * 2 ** (i + 1)
            self.layers.append(StyledLayer(before, after, width, size, double=True))
            for _ in range(depth - 1):
                self.layers.append(StyledLayer(after, after, width, size, double=False))
            self.to_colours.append(ModulatedConv2d(after, colours, 1, width, demodulate=False))
        self.depth = depth
        self.colour_bias = nn.Parameter(torch.zeros(colours, 1, 1))
        self.tanh = tanh

    def forward(self, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Generate images, approximately in [−1, 1], at the current size.

        Args:
            w: (batch, layers, width).
            noise: Noise of each layer, (batch or 1, 1, height, width); None uses the stored noise.
        """
        noises = [None] * len(self.layers) if noise is None else list(noise)
        x, image = self.beginning(w[:, 0]), None
        sizes, share = self.grown
        for i, (layer, layer_noise) in enumerate(zip(self.layers, noises, strict=True)):
            size, place = divmod(i + self.depth - 1, self.depth)
            if size + self.skipped >= sizes:
                break
            x = layer(x, w[:, i], layer_noise)
            if place == self.depth - 1:  # the last layer of its size
                colours = self.to_colours[size](x, w[:, i])
                newest = share if size + self.skipped == sizes - 1 else 1
                image = colours if image is None else larger(image, newest) + newest * colours
        assert image is not None
        image = image + self.colour_bias
        return torch.tanh(image) if self.tanh else image

    @torch.no_grad()
    def begin_as(self, small: "Synthesis") -> None:
        """Initialise from a generator of half the side, whose images are then generated at twice the side.

        The weights of `small` are copied; the colours of the new size are zero.

        Raises:
            UserError: `small` is not this network without its last size.
        """
        wanted = {name: value.shape for name, value in self.state_dict().items()}
        given = small.state_dict()
        if len(self.to_colours) != len(small.to_colours) + 1 or any(
            wanted.get(name) != value.shape for name, value in given.items()
        ):
            raise UserError(
                "expected a smaller generator with the layers of this one except those of its last size"
            )
        self.load_state_dict(given, strict=False)
        colours = self.to_colours[-1]
        assert isinstance(colours, ModulatedConv2d)
        colours.weight.zero_()
        # The new size starts bilinear: four independent kernels for the four subpixels of a pixel give a
        # pattern of dots that a trained generator does not lose again.
        doubling = cast(StyledLayer, self.layers[-self.depth]).convolution
        tent = torch.tensor([1.0, 3.0, 3.0, 1.0]).to(doubling.weight)
        doubling.weight.copy_(torch.randn_like(doubling.weight[:, :, :1, :1]) * torch.outer(tent, tent) / 5)

    @property
    def layers_in_use(self) -> int:
        """Number of layers in use at the current size."""
        return 1 + self.depth * (self.grown[0] - self.skipped - 1)

    def beginning(self, w: Tensor) -> Tensor:
        """Return the input of the first layer, (batch, C, height, width), for its w (batch, width of w)."""
        if self.from_map is not None:
            return cast(Tensor, self.from_map(w.view(len(w), -1, *self.first)))
        if self.linear is not None:
            return cast(Tensor, self.linear(w)).view(len(w), -1, *self.first)
        assert self.start is not None
        return self.start.expand(len(w), -1, -1, -1)


Blocks = Literal["residual", "plain", "pooled"]


class Critic(Growing):
    """Map images to one score each: blocks that halve the side, minibatch std, two linear layers.

    Args:
        channels: Number of channels of the blocks, coarse to fine, as in `Synthesis`.
        colours: Number of image channels.
        grows: Whether to accept images of every size (see `Growing`), not only of full size.
        blocks: Kind of block: `residual`, two convolutions and a shortcut (StyleGAN2); `plain`, one strided
            convolution, half the operations, which separates real from generated scenes in as many steps;
            or `pooled`, two convolutions and the mean of 2×2 (PGGAN).
        last: Height and width of the last map.
    """

    def __init__(
        self,
        channels: Sequence[int],
        colours: int = 3,
        grows: bool = False,
        blocks: Blocks = "residual",
        last: tuple[int, int] = (4, 4),
    ):
        super().__init__(len(channels))
        widths = list(reversed(channels))
        entries = widths if grows else widths[:1]
        self.from_colours = nn.ModuleList(
            EqualisedConv2d(colours, channel, 1, LEAKY_GAIN) for channel in entries
        )
        pairs = zip(widths, widths[1:], strict=False)
        make = {"residual": CriticBlock, "plain": PlainBlock, "pooled": PooledBlock}[blocks]
        self.blocks = nn.ModuleList(make(before, after) for before, after in pairs)
        wide = widths[-1]
        self.last = EqualisedConv2d(wide + 1, wide, 3, LEAKY_GAIN)
        self.hidden = EqualisedLinear(math.prod(last) * wide, wide, LEAKY_GAIN)
        self.output = EqualisedLinear(wide, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the activations at all sizes, fine to coarse, for images in [−1, 1] of the current size."""
        sizes, share = self.grown
        first = len(self.blocks) + 1 - sizes
        x = activate(self.from_colours[first](images))
        activations = [x]
        for i, block in enumerate(self.blocks):
            if i < first:
                continue
            x = block(x)
            if i == first and share < 1:
                coarse = activate(self.from_colours[i + 1](avg_pool2d(images, 2)))
                x = coarse + share * (x - coarse)
            activations.append(x)
        return activations

    def forward(self, images: Tensor) -> Tensor:
        """Return scores (batch,), larger for images that look real."""
        return self.score_features(self.features(images)[-1])

    def begin_as(self, small: "Critic") -> None:
        """Initialise from a critic of half the side, applied to means of 2×2 pixels; see `begin_halved`."""
        begin_halved(self.from_colours[0], self.blocks, small.from_colours[0], small.blocks)
        for name in ("last", "hidden", "output"):
            getattr(self, name).load_state_dict(getattr(small, name).state_dict())

    def score_features(self, coarsest: Tensor) -> Tensor:
        """Return scores (batch,) from the last of `features`."""
        x = activate(self.last(with_deviation(coarsest)))
        score: Tensor = self.output(activate(self.hidden(x.flatten(1))))
        return score.squeeze(1)


class CriticBlock(nn.Module):
    """Residual block of two convolutions, the second with stride 2, and a 1×1 shortcut."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = EqualisedConv2d(inputs, inputs, 3, LEAKY_GAIN)
        self.second = EqualisedConv2d(inputs, outputs, 4, LEAKY_GAIN, halve=True)
        self.beside = EqualisedConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = self.beside(avg_pool2d(x, 2))
        return (activate(self.second(activate(self.first(x)))) + shortcut) / LEAKY_GAIN


class PlainBlock(nn.Module):
    """Convolution that halves the side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = EqualisedConv2d(inputs, outputs, 4, LEAKY_GAIN, halve=True)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.convolution(x))


@torch.no_grad()
def begin_halved(entry: nn.Module, blocks: nn.ModuleList, old_entry: nn.Module, old: nn.ModuleList) -> None:
    """Initialise a network from one of half the side, applied to means of 2×2 pixels.

    Two channels of the entry per colour carry ±x, from which x can be recovered after a leaky ReLU:
    l(x) − l(−x) = 1.2·x. The first block replaces the old entry, with means in place of single pixels; the
    other blocks are copied.

    Raises:
        UserError: a block is not a `PlainBlock`, the channels differ, or the entry has too few.
    """
    first = blocks[0]
    if not isinstance(first, PlainBlock) or not all(isinstance(block, PlainBlock) for block in old):
        raise UserError("only networks of plain blocks can be initialised from one of half the side")
    assert isinstance(entry, EqualisedConv2d) and isinstance(old_entry, EqualisedConv2d)
    convolution = first.convolution
    colours = entry.weight.shape[1]
    old_shapes, own_shapes = (
        [layer.weight.shape for layer in part.modules() if isinstance(layer, EqualisedConv2d)]
        for part in (old, blocks[1:])
    )
    fits = old_shapes == own_shapes
    if not fits or len(entry.weight) < 2 * colours or len(convolution.weight) != len(old_entry.weight):
        raise UserError(
            "expected a smaller network with the channels of this one after its first block, and an entry of "
            f"at least {2 * colours} channels"
        )
    signs = torch.cat([torch.eye(colours), -torch.eye(colours)])[:, :, None, None].to(entry.weight)
    entry.weight[: 2 * colours] = signs / entry.scale
    reads = old_entry.weight[:, :, 0, 0] * old_entry.scale / (4 * 1.2)
    convolution.weight.zero_()
    both = torch.cat([reads, -reads], 1)[:, :, None, None] / convolution.scale
    convolution.weight[:, : 2 * colours, 1:3, 1:3] = both
    assert entry.bias is not None and convolution.bias is not None and old_entry.bias is not None
    entry.bias.zero_()
    convolution.bias.copy_(old_entry.bias)
    for block, before in zip(blocks[1:], old, strict=True):
        block.load_state_dict(before.state_dict())


class PooledBlock(nn.Module):
    """Two convolutions followed by 2×2 average pooling."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = EqualisedConv2d(inputs, inputs, 3, LEAKY_GAIN)
        self.second = EqualisedConv2d(inputs, outputs, 3, LEAKY_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(activate(self.second(activate(self.first(x)))), 2)


def with_deviation(x: Tensor, group: int = 4) -> Tensor:
    """Append a channel with the mean std over groups of images (PGGAN, section 3).

    Images i, i + n/g, i + 2n/g, … form a group of g; a batch that g does not divide is one group.
    """
    batch = len(x)
    group = group if batch % group == 0 else batch
    parts = x.view(group, batch // group, *x.shape[1:])
    deviation = (parts.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    plane = deviation.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, plane], 1)
