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
from flows.core.bounds import Bins, ImageShape, NonNegativeInt, PositiveFloat, PositiveInt
from flows.core.numerics import evaluating
from flows.errors import UserError
from flows.models.codes import Codes
from flows.models.styles import StyleGenerator, StyleModel, first_size
from flows.networks.encoder import MapEncoder, PlainEncoder, ResidualEncoder
from flows.networks.equalised import LEAKY_GAIN, EqualisedConv2d, EqualisedLinear
from flows.networks.refiner import Refined, Refiner, refine
from flows.networks.stylegan import Blocks, Critic, StartName, Synthesis, activate, map_channels
from flows.storage.stored import StoredModule

__all__ = ["LIA"]

Flavour = Literal["official", "default"]
CouplingName = Literal["additive", "affine"]


class CouplingPerceptron(nn.Module):
    """Two equalised linear layers that predict the shift (and raw scale) of a coupling in φ.

    Args:
        inputs, hidden, outputs: Number of features.
        multiplier: Factor on the learning rate.
        leaky_output: Whether the output passes a leaky ReLU, as in the released code; otherwise it is linear
            and zero at initialisation, so that φ starts as a permutation.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        multiplier: float,
        leaky_output: bool,
    ):
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
    """Three equalised convolutions that predict the shift (and raw scale) of a coupling in φ on maps.

    The first has a bias per position, because image content depends on the position. The output is zero at
    initialisation.

    Args:
        inputs, hidden, outputs: Number of channels.
        size: Height and width of the map.
        multiplier: Factor on the learning rate.
    """

    def __init__(
        self,
        inputs: int,
        hidden: int,
        outputs: int,
        size: tuple[int, int],
        multiplier: float,
    ):
        super().__init__()
        self.first = EqualisedConv2d(inputs, hidden, 3, LEAKY_GAIN, bias=False, multiplier=multiplier)
        self.places, self.multiplier = nn.Parameter(torch.zeros(hidden, *size)), multiplier
        self.second = EqualisedConv2d(hidden, hidden, 1, LEAKY_GAIN, multiplier=multiplier)
        self.last = EqualisedConv2d(hidden, outputs, 3, multiplier=multiplier)
        nn.init.zeros_(self.last.weight)

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        y = activate(self.first(kept) + self.multiplier * self.places)
        raw: Tensor = self.last(activate(self.second(y)))
        return raw


class InverseMapping(nn.Module):
    """Map from z to w by φ⁻¹. The attribute `phi` is φ itself, from w to z, with the same weights."""

    def __init__(self, phi: Bijection):
        super().__init__()
        self.phi = phi

    def forward(self, z: Tensor) -> Tensor:
        w: Tensor = self.phi.inverse(z)[0]
        return w


class LIA(StyleModel):
    """Autoencoder with an invertible map φ in latent space: w = E(x), z = φ(w); w = φ⁻¹(z), x = G(w).

    G is StyleGAN's synthesis network. Stage 1 trains a GAN with mapping φ⁻¹; stage 2 trains the encoder E
    with G and φ fixed (objective `LIATraining`). φ is exact in both directions; w from x is learned.

    The flavour `official` follows the released code: additive couplings that end with a leaky ReLU, a
    reversal of the features between them, a learning rate of 1/100 in φ, tanh at the end of the synthesis,
    and a residual encoder with batch norm, so that w has variance 1 in every coordinate. `default` has
    couplings with a linear output that is zero at initialisation, 1/10 of the learning rate, no tanh, and a
    plain encoder without batch norm, because batch norm's noise at small batch sizes would limit the
    reconstructions.

    Args:
        image_shape: Image shape (C, H, W). Halving both sides must give a first map of about 4×4: (4, 4) from
            (32, 32), (3, 4) from (48, 64).
        bins: Number of grey levels of the images.
        size: Dimension of z and w, even.
        channels: Number of channels of the synthesis at the first map, at twice its sides, …, up to those of
            the images.
        critic_channels: Number of channels of the critic; None uses `channels`.
        encoder_channels: Number of channels of the encoder at the image sides, half of them, …, down to about
            4×4.
        steps: Number of couplings in φ.
        hidden: Width of the coupling networks; None uses `size`.
        coupling: Type of coupling, `additive` (volume preserving) or `affine`.
        glow: Whether an ActNorm and an invertible linear map, instead of the reversal, precede each coupling.
        multiplier: Factor on the learning rate of φ; None uses that of the flavour.
        flavour: Variant, `official` or `default`.
        depth: Number of styled layers of each size but the first: 2 in the paper, or 1.
        start: Input of the first layer: a learned `constant` (released code), a `linear` function of w, or w
            as a `map`. With `map` each part of w has a position in the image, and the encoder is fully
            convolutional.
        start_side: Side of the first layer, 4, 8 or 16, and of the first entry of `channels`; with `map` also
            of the last entry of `encoder_channels`. For images of (48, 64), 8 gives a first layer of (6, 8).
        critic_blocks: Kind of the critic's blocks: `residual` (StyleGAN2), `plain` (one strided convolution,
            faster) or `pooled` (PGGAN).
        grows: Whether the critic accepts images of every size, for progressive growing.
        refinements: Number of refinement steps after the encoder, each of which uses the image of the current
            code and the gradient of its error (see `Refiner`); 0 in the paper. Each costs a forward and a
            backward pass of the generator.

    Raises:
        UserError: Options do not fit the image shape or each other.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        size: PositiveInt = 96,
        channels: Sequence[PositiveInt] = (96, 64, 48, 24),
        critic_channels: Sequence[PositiveInt] | None = None,
        encoder_channels: Sequence[PositiveInt] = (24, 64, 128, 192),
        steps: PositiveInt = 4,
        hidden: PositiveInt | None = None,
        coupling: CouplingName = "additive",
        glow: bool = False,
        multiplier: PositiveFloat | None = None,
        flavour: Flavour = "default",
        depth: PositiveInt = 2,
        start: StartName = "constant",
        start_side: PositiveInt = 4,
        critic_blocks: Blocks = "residual",
        grows: bool = False,
        refinements: NonNegativeInt = 0,
    ):
        super().__init__()
        if start_side not in (4, 8, 16):
            raise UserError(f"start_side: expected 4, 8 or 16, got {start_side}")
        official = flavour == "official"
        if official and start == "map":
            raise UserError(
                "flavour official: its encoder ends in a dense layer, so w is not a map; set another start"
            )
        if grows and start_side != 4:
            raise UserError(f"grows: expected start_side 4, where growing starts, got {start_side}")
        critic_channels = critic_channels or channels
        first = first_size(image_shape, channels, start=start_side)
        last = first_size(image_shape, critic_channels)
        encoded = first_size(image_shape, encoder_channels, start=start_side if start == "map" else 4)
        shape = (map_channels(size, first), *first) if start == "map" else None
        halved = shape[0] if shape else size
        if halved % 2:
            raise UserError(f"size: expected an even number of channels in φ, got {halved} with size {size}")
        slower = multiplier or (0.01 if official else 0.1)
        phi = make_phi(size, steps, hidden or size, coupling, glow, official, slower, shape)
        skipped = len(critic_channels) - len(channels)
        generator = StyleGenerator(
            InverseMapping(phi),
            Synthesis(channels, size, image_shape[0], official, depth, start, first, skipped),
        )
        critic = Critic(critic_channels, image_shape[0], grows, critic_blocks, last)
        encoder = make_encoder(encoder_channels, size, image_shape[0], official, shape, encoded)
        self.encoder = encoder.to(memory_format=torch.channels_last)
        self.assemble_styles(image_shape, bins, generator, critic, size, size)
        maps = {"all": shape} if shape else {}
        z, w, wide = self.spaces.values()
        self.spaces = {
            "z": replace(z, guarantee="exact-given-w", maps=maps),
            "w": replace(w, guarantee="learned", density=True, conversions=frozenset({"z", "w+"}), maps=maps),
            "w+": replace(wide, guarantee="learned"),
        }
        self.refinements, self.refiner = refinements, None
        if refinements:
            layers, height, width = shape or (size, 1, 1)
            self.refiner = Refiner(layers, (height, width))

    def start_from(self, other: StoredModule) -> None:
        """Copy the weights of a LIA of the same sizes, or of one for half the image side.

        In the latter case codes must be maps of the same shape. The model then generates the images of the
        smaller one at twice the side, and encodes means of 2×2 pixels as the smaller one does.

        Raises:
            UserError: The weights do not fit.
        """
        half = tuple(2 * side for side in other.image_shape[1:]) == self.image_shape[1:]
        if not isinstance(other, LIA) or not half:
            return super().start_from(other)
        encoder, smaller = self.encoder, other.encoder
        if not isinstance(encoder, MapEncoder) or not isinstance(smaller, MapEncoder):
            raise UserError(
                "--init: weights of a LIA for half the image side need codes that are maps (start: map)"
            )
        pairs: dict[str, tuple[nn.Module | None, nn.Module | None]] = {
            "mapping": (self.generator.mapping, other.generator.mapping),
            "refiner": (self.refiner, other.refiner),
        }
        for name, (own, given) in pairs.items():
            if weight_shapes(own) != weight_shapes(given):
                raise UserError(f"--init: the {name} of the smaller LIA has different sizes")
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
        """Bijection φ from w to z; its inverse is the generator's mapping."""
        mapping = self.generator.mapping
        assert isinstance(mapping, InverseMapping)
        return mapping.phi

    def encode(self, images: Tensor, space: str = "z", labels: Tensor | None = None) -> Tensor:
        self.check_space(space)
        pixels.check_unit(images, self.image_shape)
        with evaluating(self):
            x = pixels.signed(images.to(self.dtype))
            return self.convert(self.refined(self.encoder(x), x).codes[-1], "w", space)

    def refined(self, w: Tensor, images: Tensor) -> Refined:
        """Refine codes w of the encoder for images in [−1, 1]; return the codes after every step."""
        return refine(w, images, self.refiner, self.refinements, self.generator.generate)

    def can_convert(self, codes: Codes, target: str) -> bool:
        if codes.space == "w+" and target != "w+":
            return bool(self._agree(codes.values))
        return super().can_convert(codes, target)

    def _agree(self, code: Tensor) -> bool:
        """Whether all layers of w+ codes are equal, so that the codes exist in w."""
        styles = code.unflatten(1, (self.style_layers, self.width))
        return torch.equal(styles, styles[:, :1].expand_as(styles))

    def convert_back(self, code: Tensor, source: str, target: str) -> Tensor:
        if source == "w+":
            if not self._agree(code):
                raise UserError(
                    "codes of w+ with different layers have no code in w or z: expected equal layers"
                )
            code = code[:, : self.width]
        return self.phi(code)[0] if target == "z" else code

    def log_prob_code(self, code: Tensor, space: str = "z") -> Tensor:
        if space != "w":
            return super().log_prob_code(code, space)
        z, log_det = self.phi(code)  # exact, in one pass
        return super().log_prob_code(z, "z") + log_det


def weight_shapes(module: nn.Module | None) -> dict[str, torch.Size]:
    """Return the shapes of all weights by name; empty for None."""
    return {} if module is None else {name: value.shape for name, value in module.state_dict().items()}


def make_encoder(
    channels: Sequence[int],
    width: int,
    colours: int,
    official: bool,
    shape: tuple[int, int, int] | None,
    last: tuple[int, int],
) -> nn.Module:
    """Create a residual (released), fully convolutional (if codes are maps of `shape`) or plain encoder."""
    if shape:
        return MapEncoder(channels, shape[0], colours)
    return (ResidualEncoder if official else PlainEncoder)(channels, width, colours, last)


def make_phi(
    size: int,
    steps: int,
    hidden: int,
    coupling: CouplingName,
    glow: bool,
    official: bool,
    multiplier: float,
    shape: tuple[int, int, int] | None = None,
) -> Chain:
    """Create φ, from w to z: steps of a reversal (or ActNorm and linear map) and a coupling on halves.

    If w is a map of `shape` (C, H, W), φ acts on its channels, and a coupling's shift and scale at a position
    depend on the neighbourhood.
    """
    channels = shape[0] if shape else size
    half, other = channels // 2, channels - channels // 2
    outputs = other if coupling == "additive" else 2 * other

    def network() -> nn.Module:
        if shape:
            return CouplingConvolutions(half, hidden, outputs, shape[1:], multiplier)
        return CouplingPerceptron(half, hidden, outputs, multiplier, leaky_output=official)

    def step() -> list[Bijection]:
        mixing: list[Bijection] = [ActNorm(channels), InvertibleConv1x1(channels)] if glow else [Reverse()]
        if coupling == "additive":
            return [*mixing, AdditiveCoupling(Halves(), network())]
        scale = make_scale("sigmoid" if official else "two-sided")
        return [*mixing, AffineCoupling(Halves(), network(), scale, shift_first=True, interleaved=True)]

    all_steps = [part for _ in range(steps) for part in step()]
    if shape is None:
        return Chain(*all_steps)
    flat = Flatten(shape)
    return Chain(Inverse(flat), *all_steps, flat)
