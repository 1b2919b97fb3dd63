"""StyleGAN's networks (Karras et al. 2019, 2020, arXiv 1812.04948 and 1912.04958), in plain PyTorch."""

import math
from collections.abc import Sequence
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, conv2d, conv_transpose2d, interpolate, leaky_relu

from flows.errors import UserError
from flows.networks.equalised import LEAKY_GAIN, EqualisedConv2d, EqualisedLinear
from flows.networks.growing import Growing


def activate(x: Tensor) -> Tensor:
    """Leaky ReLU of slope 0.2."""
    return leaky_relu(x, 0.2)


class Mapping(nn.Module):
    """z to w by a perceptron; z is normalised to mean square 1 first.

    Args:
        size: of z, of w and of the hidden layers.
        layers: how many (8 in StyleGAN, 2 in small ones).
        multiplier: factor on its learning rate.
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
    """Divide by the root of the mean square over the channels (axis 1)."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()


class ModulatedConv2d(nn.Module):
    """A convolution whose inputs are scaled by a style, its outputs brought back to variance 1.

    Scaling activations before and after is the same as scaling the weights of each image (StyleGAN2,
    equations 1–3), and one ordinary convolution serves the whole batch.

    Args:
        inputs, outputs: channels.
        size: of the kernel; odd, or 4 where it doubles the side.
        width: of w, from which the style is an affine function.
        demodulate: bring the outputs back to variance 1; not for colours.
        double: twice the side, by a transposed convolution of stride 2: every output sees 2×2 inputs.
    """

    def __init__(
        self, inputs: int, outputs: int, size: int, width: int, demodulate: bool = True, double: bool = False
    ):
        super().__init__()
        self.style = EqualisedLinear(width, inputs, bias=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size))
        self.phases = 4 if double else 1  # of the kernel's entries, each output sees one in so many
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

    The noise is a stored buffer: the generator is a function of its codes. `strength` starts at 0.

    Args:
        inputs, outputs: channels.
        width: of w.
        side: of the output in pixels.
        double: whether the input has half that side.
    """

    noise: Tensor

    def __init__(self, inputs: int, outputs: int, width: int, side: int, double: bool):
        super().__init__()
        self.convolution = ModulatedConv2d(inputs, outputs, 4 if double else 3, width, double=double)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise", torch.randn(1, 1, side, side))

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None = None) -> Tensor:
        x = self.convolution(x, w)
        x = x + self.strength * (self.noise if noise is None else noise)
        return activate(x + self.bias[:, None, None]) * LEAKY_GAIN


def double(x: Tensor) -> Tensor:
    """Twice the side, bilinear."""
    return interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def larger(image: Tensor, share: float) -> Tensor:
    """Twice the side: repeated for a new size, as real images are, and bilinear the more it has faded in."""
    if share == 1:
        return double(image)
    return torch.lerp(interpolate(image, scale_factor=2), double(image), share)


Start = Literal["constant", "linear", "map"]


def map_channels(width: int, side: int) -> int:
    """Channels of a code of `width` that is a map. Raises ValueError where it is none of that side."""
    if width % side**2:
        raise UserError(
            f"start map: a code of {width} is no map of {side}×{side}, expected a multiple of {side**2}"
        )
    return width // side**2


class Synthesis(Growing):
    """w, one per layer, to images: styled layers, and a sum of colours over all sizes.

    Args:
        channels: of the first layer and of every next, of twice the side; their number sets that of images.
        width: of w.
        colours: channels of the images.
        tanh: end with one (LIA's decoder), else linear.
        depth: styled layers of every size but the first, which has one: 2 in the paper, or 1.
        start: what the first layer sees: a learned `constant` (StyleGAN); a `linear` function of the first w
            (as in PGGAN); or that w itself as a `map` of width/side² channels, brought to as many as the
            layer has, so that a part of the code lies at a place of the image.
        start_side: of the first layer in pixels.

    Raises:
        ValueError: w is no map of that side.
    """

    def __init__(
        self,
        channels: Sequence[int],
        width: int,
        colours: int = 3,
        tanh: bool = False,
        depth: int = 2,
        start: Start = "constant",
        start_side: int = 4,
    ):
        self.skipped = start_side.bit_length() - 3  # sizes, counted from 4×4
        super().__init__(self.skipped + len(channels))
        first, places = channels[0], start_side**2
        self.start_side = start_side
        constant = torch.randn(1, first, start_side, start_side)
        self.start = nn.Parameter(constant) if start == "constant" else None
        self.linear = EqualisedLinear(width, places * first) if start == "linear" else None
        self.from_map = None
        if start == "map":
            self.from_map = EqualisedConv2d(map_channels(width, start_side), first, 1)
        self.layers = nn.ModuleList([StyledLayer(first, first, width, start_side, double=False)])
        self.to_colours = nn.ModuleList([ModulatedConv2d(first, colours, 1, width, demodulate=False)])
        for i, (before, after) in enumerate(zip(channels, channels[1:], strict=False)):
            side = start_side * 2 ** (i + 1)
            self.layers.append(StyledLayer(before, after, width, side, double=True))
            for _ in range(depth - 1):
                self.layers.append(StyledLayer(after, after, width, side, double=False))
            self.to_colours.append(ModulatedConv2d(after, colours, 1, width, demodulate=False))
        self.depth = depth
        self.colour_bias = nn.Parameter(torch.zeros(colours, 1, 1))
        self.tanh = tanh

    def forward(self, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Images, about [−1, 1], of the side that it has grown to.

        Args:
            w: (batch, layers, width).
            noise: of every layer, (batch or 1, 1, side, side); None takes the stored ones.
        """
        given = [None] * len(self.layers) if noise is None else list(noise)
        x, image = self.beginning(w[:, 0]), None
        sizes, share = self.grown
        for i, (layer, own) in enumerate(zip(self.layers, given, strict=True)):
            size, place = divmod(i + self.depth - 1, self.depth)
            if size + self.skipped >= sizes:
                break
            x = layer(x, w[:, i], own)
            if place == self.depth - 1:  # the last layer of its size
                colours = self.to_colours[size](x, w[:, i])
                newest = share if size + self.skipped == sizes - 1 else 1
                image = colours if image is None else larger(image, newest) + newest * colours
        assert image is not None
        image = image + self.colour_bias
        return torch.tanh(image) if self.tanh else image

    @torch.no_grad()
    def begin_as(self, small: "Synthesis") -> None:
        """Draw what one of half the side draws, at twice the side: its weights, and new colours of zero.

        Raises:
            ValueError: it is not this one without its last size.
        """
        wanted = {name: value.shape for name, value in self.state_dict().items()}
        given = small.state_dict()
        if len(self.to_colours) != len(small.to_colours) + 1 or any(
            wanted.get(name) != value.shape for name, value in given.items()
        ):
            raise UserError("the smaller generator is not this one without its last size")
        self.load_state_dict(given, strict=False)
        colours = self.to_colours[-1]
        assert isinstance(colours, ModulatedConv2d)
        colours.weight.zero_()
        # The new size begins bilinear: four independent kernels for the four places of a pixel are a
        # pattern of dots, which a generator that draws already does not lose again.
        doubling = cast(StyledLayer, self.layers[-self.depth]).convolution
        tent = torch.tensor([1.0, 3.0, 3.0, 1.0]).to(doubling.weight)
        doubling.weight.copy_(torch.randn_like(doubling.weight[:, :, :1, :1]) * torch.outer(tent, tent) / 5)

    @property
    def layers_in_use(self) -> int:
        """Of the size that it has grown to."""
        return 1 + self.depth * (self.grown[0] - self.skipped - 1)

    def beginning(self, w: Tensor) -> Tensor:
        """What the first layer sees, (batch, C, side, side)."""
        side = self.start_side
        if self.from_map is not None:
            return cast(Tensor, self.from_map(w.view(len(w), -1, side, side)))
        if self.linear is not None:
            return cast(Tensor, self.linear(w)).view(len(w), -1, side, side)
        assert self.start is not None
        return self.start.expand(len(w), -1, -1, -1)


Blocks = Literal["residual", "plain", "pooled"]


class Critic(Growing):
    """Images to one number each: blocks that halve the side, minibatch deviation, two linear layers.

    Args:
        channels: of the 4×4, 8×8, … blocks, as the synthesis has them.
        colours: channels of the images.
        grows: take images of every size, see `Growing`; without, only those of full size.
        blocks: `residual`, two convolutions and a shortcut (StyleGAN2), or `plain`, one strided convolution,
            half the operations, which tells real from generated scenes apart in as many steps, or `pooled`,
            two convolutions and the mean of 2×2 (PGGAN).
    """

    def __init__(
        self, channels: Sequence[int], colours: int = 3, grows: bool = False, blocks: Blocks = "residual"
    ):
        super().__init__(len(channels))
        widths = list(reversed(channels))
        entries = widths if grows else widths[:1]
        self.from_colours = nn.ModuleList(EqualisedConv2d(colours, each, 1, LEAKY_GAIN) for each in entries)
        pairs = zip(widths, widths[1:], strict=False)
        make = {"residual": CriticBlock, "plain": PlainBlock, "pooled": PooledBlock}[blocks]
        self.blocks = nn.ModuleList(make(before, after) for before, after in pairs)
        last = widths[-1]
        self.last = EqualisedConv2d(last + 1, last, 3, LEAKY_GAIN)
        self.hidden = EqualisedLinear(16 * last, last, LEAKY_GAIN)
        self.output = EqualisedLinear(last, 1)

    def features(self, images: Tensor) -> list[Tensor]:
        """Activations of all sizes, fine to coarse, of images in [−1, 1] of the side it has grown to."""
        sizes, share = self.grown
        first = len(self.blocks) + 1 - sizes
        x = activate(self.from_colours[first](images))
        found = [x]
        for i, block in enumerate(self.blocks):
            if i < first:
                continue
            x = block(x)
            if i == first and share < 1:
                coarse = activate(self.from_colours[i + 1](avg_pool2d(images, 2)))
                x = coarse + share * (x - coarse)
            found.append(x)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """(batch,), larger for images that look real."""
        return self.judge(self.features(images)[-1])

    def begin_as(self, small: "Critic") -> None:
        """Judge the means of 2×2 pixels as one of half the side judges its images; see `begin_halved`."""
        begin_halved(self.from_colours[0], self.blocks, small.from_colours[0], small.blocks)
        for name in ("last", "hidden", "output"):
            getattr(self, name).load_state_dict(getattr(small, name).state_dict())

    def judge(self, coarsest: Tensor) -> Tensor:
        """The same from the last of `features`."""
        x = activate(self.last(with_deviation(coarsest)))
        score: Tensor = self.output(activate(self.hidden(x.flatten(1))))
        return score.squeeze(1)


class CriticBlock(nn.Module):
    """Two convolutions, the second of which halves the side; a 1×1 convolution beside them."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = EqualisedConv2d(inputs, inputs, 3, LEAKY_GAIN)
        self.second = EqualisedConv2d(inputs, outputs, 4, LEAKY_GAIN, halve=True)
        self.beside = EqualisedConv2d(inputs, outputs, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.beside(avg_pool2d(x, 2))
        return (activate(self.second(activate(self.first(x)))) + beside) / LEAKY_GAIN


class PlainBlock(nn.Module):
    """One convolution that halves the side."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.convolution = EqualisedConv2d(inputs, outputs, 4, LEAKY_GAIN, halve=True)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.convolution(x))


@torch.no_grad()
def begin_halved(entry: nn.Module, blocks: nn.ModuleList, old_entry: nn.Module, old: nn.ModuleList) -> None:
    """Let a network see what one of half the side saw: the means of 2×2 pixels.

    Six channels of the entry carry ±x, of which leaky ReLUs lose nothing: l(x) − l(−x) = 1.2·x. The first
    block takes their means where the old entry had single pixels; the other blocks are the old ones.

    Raises:
        ValueError: the blocks are not plain ones, their channels are others, or there are not enough.
    """
    first = blocks[0]
    if not isinstance(first, PlainBlock) or not all(isinstance(block, PlainBlock) for block in old):
        raise UserError("only networks of plain blocks can begin as one of half the side")
    assert isinstance(entry, EqualisedConv2d) and isinstance(old_entry, EqualisedConv2d)
    convolution = first.convolution
    colours = entry.weight.shape[1]
    kept, own = ([each.weight.shape for each in part.modules() if isinstance(each, EqualisedConv2d)]
                 for part in (old, blocks[1:]))  # fmt: skip
    fits = kept == own
    if not fits or len(entry.weight) < 2 * colours or len(convolution.weight) != len(old_entry.weight):
        raise UserError(
            "the smaller network's channels are not those of this one after its first block, which needs "
            f"at least {2 * colours} of its own"
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
    """Two convolutions, then means over squares of 2×2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.first = EqualisedConv2d(inputs, inputs, 3, LEAKY_GAIN)
        self.second = EqualisedConv2d(inputs, outputs, 3, LEAKY_GAIN)

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(activate(self.second(activate(self.first(x)))), 2)


def with_deviation(x: Tensor, group: int = 4) -> Tensor:
    """x with one more channel: the mean standard deviation over groups of images (PGGAN, section 3).

    Images i, i + n/g, i + 2n/g, … form a group of g; a batch that g does not divide is one group.
    """
    batch = len(x)
    group = group if batch % group == 0 else batch
    parts = x.view(group, batch // group, *x.shape[1:])
    deviation = (parts.var(0, unbiased=False) + 1e-8).sqrt().mean((1, 2, 3))
    plane = deviation.repeat(group).view(batch, 1, 1, 1).expand(-1, 1, *x.shape[2:])
    return torch.cat([x, plane], 1)
