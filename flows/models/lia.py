"""LIA: Latently Invertible Autoencoder with Adversarial Learning (Zhu et al. 2019, arXiv 1906.08090)."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal, cast

import torch
from torch import Tensor, nn

from flows import images as pixels
from flows.bijections.base import Bijection, Inverse
from flows.bijections.chain import Chain
from flows.bijections.coupling import AdditiveCoupling, AffineCoupling
from flows.bijections.linear import InvertibleConv1x1
from flows.bijections.partition import Halves
from flows.bijections.permutation import Reverse
from flows.bijections.scales import make_scale
from flows.bijections.scaling import ActNorm
from flows.bijections.squeeze import Flatten
from flows.checks import check_choice, check_positive
from flows.errors import UserError
from flows.models.codes import Codes
from flows.models.styles import StyleGenerator, StyleModel, check_sizes
from flows.networks.encoder import MapEncoder, PlainEncoder, ResidualEncoder
from flows.networks.equalised import LEAKY_GAIN, EqualisedConv2d, EqualisedLinear
from flows.networks.refiner import Refined, Refiner, refine
from flows.networks.stylegan import Blocks, Critic, Start, Synthesis, activate, map_channels
from flows.numerics import evaluating
from flows.stored import StoredModule

Flavour = Literal["official", "default"]
CouplingName = Literal["additive", "affine"]


class CouplingPerceptron(nn.Module):
    """Two equalised linear layers, the shift (and raw scale) of a coupling in φ.

    Args:
        inputs, outputs, hidden: sizes.
        multiplier: factor on its learning rate.
        leaky_output: a leaky ReLU at the end too, as released; otherwise linear and zero at first, so that φ
            starts as a permutation.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, multiplier: float, leaky_output: bool):
        super().__init__()
        self.first = EqualisedLinear(inputs, hidden, LEAKY_GAIN, multiplier)
        self.second = EqualisedLinear(hidden, outputs, LEAKY_GAIN if leaky_output else 1.0, multiplier)
        self.leaky_output = leaky_output
        if not leaky_output:
            nn.init.zeros_(self.second.weight)

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        y = self.second(activate(self.first(kept)))
        return activate(y) if self.leaky_output else y


class CouplingConvolutions(nn.Module):
    """The same where codes are maps: three equalised convolutions, and a bias for every place.

    Zero at first; what is drawn above and below differs, so that places matter.

    Args:
        inputs, hidden, outputs: channels.
        side: of the map in pixels.
        multiplier: factor on its learning rate.
    """

    def __init__(self, inputs: int, hidden: int, outputs: int, side: int, multiplier: float):
        super().__init__()
        self.first = EqualisedConv2d(inputs, hidden, 3, LEAKY_GAIN, bias=False, multiplier=multiplier)
        self.places, self.multiplier = nn.Parameter(torch.zeros(hidden, side, side)), multiplier
        self.second = EqualisedConv2d(hidden, hidden, 1, LEAKY_GAIN, multiplier=multiplier)
        self.last = EqualisedConv2d(hidden, outputs, 3, multiplier=multiplier)
        nn.init.zeros_(self.last.weight)

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        y = activate(self.first(kept) + self.multiplier * self.places)
        found: Tensor = self.last(activate(self.second(y)))
        return found


class InverseMapping(nn.Module):
    """z to w by φ⁻¹; φ itself, w to z, is one attribute away. There is no second copy of its weights."""

    def __init__(self, phi: Bijection):
        super().__init__()
        self.phi = phi

    def forward(self, z: Tensor) -> Tensor:
        w: Tensor = self.phi.inverse(z)[0]
        return w


class LIA(StyleModel):
    """x → w by an encoder, w → z by an invertible φ; z → w by φ⁻¹, w → x by StyleGAN's synthesis.

    Stage 1 trains a GAN whose mapping is φ⁻¹; stage 2 trains the encoder with generator and φ as they are
    (objective `LIATraining`). What is exact is φ: z from w, and back. w from x is learned.

    `official` is the released code: additive couplings that end in a leaky ReLU, reversal of the features
    between them, a learning rate of 1/100 in φ, tanh at the end of the synthesis, a residual encoder with
    batch norm, whose w has variance 1 in every coordinate. `default` has couplings that are linear at the end
    and start at zero, a tenth of the learning rate, no tanh, and a plain encoder without batch norm, whose
    noise in small batches would limit what comes back.

    Args:
        image_shape: (C, H, W), H = W a power of two from 8 on.
        bins: grey levels of the images.
        size: of z and w, even.
        channels: of the synthesis at 4×4, 8×8, … up to the images' side.
        critic_channels: of the critic; None takes `channels`.
        encoder_channels: of the encoder at the images' side, half of it, … down to 4×4.
        steps: couplings of φ.
        hidden: width of their perceptrons; None takes `size`.
        coupling: `additive` (volume preserving) or `affine`.
        glow: an ActNorm and an invertible linear map before every coupling instead of the reversal.
        multiplier: factor on φ's learning rate; None takes the flavour's.
        flavour: see above.
        depth: styled layers of every size but the first: 2 in the paper, or 1.
        start: the first layer sees a learned `constant` (as released), a `linear` function of w, or w as a
            `map`: then parts of w lie at places of the image, and the encoder is fully convolutional.
        start_side: of the first layer; `channels` begin there, and those of the encoder of a map end there.
        critic_blocks: `residual` (StyleGAN2), `plain` (one strided convolution, faster) or `pooled` (PGGAN).
        grows: let the critic take images of every size, for objectives that grow.
        refinements: steps after the encoder, each of which looks at what the code draws and at the slope of
            its error (see `Refiner`); not in the paper, which has 0. Each costs a draw and its gradient.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        bins: int = 256,
        size: int = 96,
        channels: Sequence[int] = (96, 64, 48, 24),
        critic_channels: Sequence[int] | None = None,
        encoder_channels: Sequence[int] = (24, 64, 128, 192),
        steps: int = 4,
        hidden: int | None = None,
        coupling: CouplingName = "additive",
        glow: bool = False,
        multiplier: float | None = None,
        flavour: Flavour = "default",
        depth: int = 2,
        start: Start = "constant",
        start_side: int = 4,
        critic_blocks: Blocks = "residual",
        grows: bool = False,
        refinements: int = 0,
    ):
        super().__init__()
        check_positive(size=size, steps=steps, depth=depth)
        check_choice("coupling", coupling, CouplingName)
        check_choice("flavour", flavour, Flavour)
        check_choice("critic_blocks", critic_blocks, Blocks)
        check_choice("start", start, Start)
        if start_side not in (4, 8, 16):
            raise UserError(f"start_side: expected 4, 8 or 16, got {start_side}")
        official = flavour == "official"
        if official and start == "map":
            raise UserError(
                "flavour official: its encoder ends in a dense layer, w is no map; set another start"
            )
        if grows and start_side != 4:
            raise UserError(f"grows: a generator that grows starts at 4×4, got start_side {start_side}")
        check_sizes(image_shape, channels, start=start_side)
        check_sizes(image_shape, critic_channels or channels)
        check_sizes(image_shape, encoder_channels, start=start_side if start == "map" else 4)
        halved = map_channels(size, start_side) if start == "map" else size
        if halved % 2:
            raise UserError(f"size: φ halves its input, expected an even number, got {halved} of {size}")
        sides = start_side if start == "map" else None
        slower = multiplier or (0.01 if official else 0.1)
        phi = make_phi(size, steps, hidden or size, coupling, glow, official, slower, sides)
        generator = StyleGenerator(
            InverseMapping(phi),
            Synthesis(channels, size, image_shape[0], official, depth, start, start_side),
        )
        critic = Critic(critic_channels or channels, image_shape[0], grows, critic_blocks)
        encoder = make_encoder(encoder_channels, size, image_shape[0], official, start, start_side)
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.assemble_styles(image_shape, bins, generator, critic, size, size)
        shape = map_channels(size, start_side) if start == "map" else 0, start_side, start_side
        maps = {"all": shape} if start == "map" else {}
        z, w, wide = self.spaces.values()
        self.spaces = {
            "z": replace(z, guarantee="exact-given-w", maps=maps),
            "w": replace(w, guarantee="learned", density=True, conversions=frozenset({"z", "w+"}), maps=maps),
            "w+": replace(wide, guarantee="learned"),
        }
        if refinements < 0:
            raise UserError(f"refinements: expected 0 or more, got {refinements}")
        self.refinements, self.refiner = refinements, None
        if refinements:
            place = start_side if start == "map" else 1
            self.refiner = Refiner(size // place**2, place)

    def start_from(self, other: StoredModule) -> None:
        """As for every model; or with the weights of a LIA of half the side, whose code is the same map.

        It then draws what that one draws, at twice the side, and encodes the means of 2×2 pixels as it did.
        """
        half = tuple(2 * side for side in other.image_shape[1:]) == self.image_shape[1:]
        if not isinstance(other, LIA) or not half:
            return super().start_from(other)
        encoder, smaller = self.encoder, other.encoder
        if not isinstance(encoder, MapEncoder) or not isinstance(smaller, MapEncoder):
            raise UserError("--init: a LIA of half the side gives its weights only where codes are maps")
        pairs: dict[str, tuple[nn.Module | None, nn.Module | None]] = {
            "mapping": (self.generator.mapping, other.generator.mapping),
            "refiner": (self.refiner, other.refiner),
        }
        for name, (own, given) in pairs.items():
            if weight_shapes(own) != weight_shapes(given):
                raise UserError(f"--init: the {name} of the smaller LIA has other sizes")
            if own is not None and given is not None:
                own.load_state_dict(given.state_dict())
        try:
            self.generator.synthesis.begin_as(other.generator.synthesis)
            cast(Critic, self.critic).begin_as(cast(Critic, other.critic))
            encoder.begin_as(smaller)
        except UserError as error:
            raise UserError(f"--init: {error}") from error

    @property
    def phi(self) -> Bijection:
        """φ, w to z with the log-determinant; its inverse is the generator's mapping."""
        mapping = self.generator.mapping
        assert isinstance(mapping, InverseMapping)
        return mapping.phi

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_space(space)
        pixels.check_unit(images, self.image_shape)
        with evaluating(self):
            x = 2 * images.to(self.dtype) - 1
            return self.convert(self.refined(self.encoder(x), x).codes[-1], "w", space)

    def refined(self, w: Tensor, images: Tensor) -> Refined:
        """The encoder's codes of images in [−1, 1], and what the refinements make of them."""
        return refine(w, images, self.refiner, self.refinements, self.generator.draw)

    def can_convert(self, codes: Codes, target: str) -> bool:
        if codes.space == "w+" and target != "w+":
            return bool(self._agree(codes.values))
        return super().can_convert(codes, target)

    def _agree(self, code: Tensor) -> bool:
        """Whether all layers of codes of w+ are equal, so that they have a w."""
        styles = code.unflatten(1, (self.layers, self.width))
        return torch.equal(styles, styles[:, :1].expand_as(styles))

    def convert_back(self, code: Tensor, source: str, target: str) -> Tensor:
        if source == "w+":
            if not self._agree(code):
                raise UserError("a w+ code whose layers differ has no w, and no z")
            code = code[:, : self.width]
        return self.phi(code)[0] if target == "z" else code

    def log_prob_code(self, code: Tensor, space: str = "z") -> Tensor:
        if space != "w":
            return super().log_prob_code(code, space)
        z, log_det = self.phi(code)  # exact, in one pass
        return super().log_prob_code(z, "z") + log_det


def weight_shapes(module: nn.Module | None) -> dict[str, torch.Size]:
    """Shapes of all weights by name; none of nothing."""
    return {} if module is None else {name: value.shape for name, value in module.state_dict().items()}


def make_encoder(
    channels: Sequence[int], width: int, colours: int, official: bool, start: Start, side: int
) -> nn.Module:
    """The released encoder, a fully convolutional one for codes that are maps, or a plain one."""
    if start == "map":
        return MapEncoder(channels, width // side**2, colours)
    return (ResidualEncoder if official else PlainEncoder)(channels, width, colours)


def make_phi(
    size: int,
    steps: int,
    hidden: int,
    coupling: CouplingName,
    glow: bool,
    official: bool,
    multiplier: float,
    side: int | None = None,
) -> Chain:
    """φ, w to z: steps of a reversal (or ActNorm and linear map) and a coupling on halves.

    Where w is a map of that `side`, they act on its channels, and what a coupling does at a place depends on
    what lies around it.
    """
    channels = size if side is None else size // side**2
    half, other = channels // 2, channels - channels // 2
    outputs = other if coupling == "additive" else 2 * other

    def network() -> nn.Module:
        if side is not None:
            return CouplingConvolutions(half, hidden, outputs, side, multiplier)
        return CouplingPerceptron(half, hidden, outputs, multiplier, leaky_output=official)

    def step() -> list[Bijection]:
        mixing: list[Bijection] = [ActNorm(channels), InvertibleConv1x1(channels)] if glow else [Reverse()]
        if coupling == "additive":
            return [*mixing, AdditiveCoupling(Halves(), network())]
        scale = make_scale("sigmoid" if official else "two-sided")
        return [*mixing, AffineCoupling(Halves(), network(), scale, shift_first=True, interleaved=True)]

    all_steps = [part for _ in range(steps) for part in step()]
    if side is None:
        return Chain(*all_steps)
    flat = Flatten((channels, side, side))
    return Chain(Inverse(flat), *all_steps, flat)
