"""Glow: Generative Flow with Invertible 1×1 Convolutions (Kingma and Dhariwal 2018, arXiv 1807.03039)."""

import math
from typing import Literal, cast

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from flows.bijections.base import Bijection, Inverse
from flows.bijections.chain import Chain
from flows.bijections.coupling import AdditiveCoupling, AffineCoupling
from flows.bijections.dequantise import Dequantiser, UniformDequantiser, VariationalDequantiser
from flows.bijections.linear import InvertibleConv1x1, InvertibleConv1x1LU
from flows.bijections.multiscale import Multiscale
from flows.bijections.partition import Halves
from flows.bijections.permutation import Reverse, random_permutation
from flows.bijections.pixels import Centre, Sigmoid
from flows.bijections.scales import ScaleName, make_scale
from flows.bijections.scaling import ActNorm, LearnedPrior
from flows.bijections.squeeze import Squeeze
from flows.core.bounds import (
    Bins,
    ImageShape,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ShareBelowOne,
)
from flows.errors import UserError
from flows.models.flow import Flow
from flows.models.priors import Normal
from flows.networks.glow import ConvPrior, GlowNetwork, SqueezedContext

__all__ = ["Glow"]

Flavour = Literal["official", "paper"]
PermutationName = Literal["plain", "lu", "reverse", "random"]
CouplingName = Literal["affine", "additive"]
DequantisationName = Literal["uniform", "variational"]


class Glow(Flow):
    """Multiscale flow; each level is a squeeze and `depth` steps of ActNorm, 1×1 convolution and coupling.

    After each level but the last, half of the channels are split off.

    The flavour `official` follows the released code: the first half of the channels is kept and the second
    changed, (x + t)·s with shift and scale interleaved, and the coupling networks mark the image border.
    `paper` follows the equations of Table 1: the second half is kept and the first changed, x·s + t, no
    border marker. Both work with any scale; the paper has `exp`, the released code `sigmoid`; the default
    here is `two-sided` (see `flows.bijections.scales`). With a published scale the learned priors are those
    of the released code, (x − mean)/std with a free std; with `two-sided`, std is two-sided and the mean is
    added after scaling. One deviation remains: the released code's top prior sees the border marker; here it
    is the same at all pixels.

    Args:
        image_shape: Image shape (C, H, W).
        bins: Number of grey levels, 256 for 8-bit and 32 for 5-bit images.
        levels: Number of levels L.
        depth: Number of steps K per level.
        width: Number of hidden channels of the coupling networks.
        coupling: Type of coupling, `affine` or `additive`.
        scale: Scale function of the affine couplings and learned priors.
        input_bound: Bound on the magnitude of a coupling network's input, so that the inverse is accurate
            away from the data; None for the published form.
        permutation: Invertible 1×1 convolution (`plain`, or `lu`), or a fixed `reverse` or `random` order of
            the channels.
        flavour: Variant, `official` or `paper`.
        learned_split: Whether to whiten the half that is split off, given the other half (a zero-initialised
            convolution).
        learned_top: Whether to whiten the last latent by a learned mean and scale.
        num_classes: Number of classes; if above 0, the top prior depends on the label.
        classifier_weight: Weight in the loss of a classifier on the top latent, whose loss is in bits (0.01
            in the released code's conditional runs).
        dequantisation: Type of dequantisation, `uniform`, or `variational` by a small flow.
        dropout: Share of hidden values of the coupling networks that are set to 0 in training.

    Raises:
        UserError: `num_classes` without `learned_top`, or `classifier_weight` without `num_classes`.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        levels: PositiveInt = 3,
        depth: PositiveInt = 32,
        width: PositiveInt = 512,
        coupling: CouplingName = "affine",
        scale: ScaleName = "two-sided",
        input_bound: PositiveFloat | None = 6.0,
        permutation: PermutationName = "plain",
        flavour: Flavour = "official",
        learned_split: bool = True,
        learned_top: bool = True,
        num_classes: NonNegativeInt = 0,
        classifier_weight: NonNegativeFloat = 0.0,
        dequantisation: DequantisationName = "uniform",
        dropout: ShareBelowOne = 0.0,
    ):
        super().__init__()
        if num_classes and not learned_top:
            raise UserError("num_classes: labels condition the learned top prior; set learned_top")
        if classifier_weight and not num_classes:
            raise UserError("classifier_weight: there is nothing to classify; set num_classes above 0")
        edge = flavour == "official"

        def conditioned(outputs_per_channel: int, inputs: int, changed: int) -> GlowNetwork:
            outputs = outputs_per_channel * changed
            return GlowNetwork(inputs, outputs, width, edge, input_bound=input_bound, dropout=dropout)

        def make_coupling(channels: int) -> Bijection:
            partition = Halves(keep_first=flavour == "official")
            first, second = channels // 2, channels - channels // 2
            kept, changed = (first, second) if flavour == "official" else (second, first)
            if coupling == "additive":
                return AdditiveCoupling(partition, conditioned(1, kept, changed))
            return AffineCoupling(
                partition,
                conditioned(2, kept, changed),
                make_scale(scale),
                shift_first=flavour == "official",
                interleaved=flavour == "official",
            )

        def step(channels: int) -> Bijection:
            return Chain(ActNorm(channels), _permute(permutation, channels), make_coupling(channels))

        def split_prior(channels: int) -> Bijection:
            half = channels // 2
            return AffineCoupling(
                Halves(),
                ConvPrior(half, 2 * half, edge, input_bound),
                make_scale("two-sided" if scale == "two-sided" else "exp"),
                shift_first=scale != "two-sided",
                interleaved=True,
            )

        chains, channels = [], image_shape[0]
        for level in range(levels):
            channels *= 4
            chain = [Squeeze(), *(step(channels) for _ in range(depth))]
            if level + 1 < levels:
                chain += [split_prior(channels)] if learned_split else []
                channels //= 2
            elif learned_top:
                bound = 2.0 if scale == "two-sided" else None
                chain += [LearnedPrior(channels, num_classes, bound)]
            chains.append(Chain(*chain))
        chains[0] = Chain(Centre(), *chains[0].steps)

        multiscale = Multiscale(chains, tuple(image_shape))
        self.classifier = nn.Linear(channels, max(1, num_classes)) if classifier_weight else None
        self.classifier_weight = classifier_weight
        if self.classifier is not None:
            nn.init.zeros_(self.classifier.weight)
        self.assemble(
            image_shape,
            multiscale,
            _dequantiser(dequantisation, image_shape[0], bins, width),
            Normal(),
            multiscale.slices,
            num_classes,
            multiscale.maps,
        )

    def penalties(self, code: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if self.classifier is None or labels is None:
            return {}
        # The classifier reads the top latent before whitening; whitening uses the class's statistics and
        # would reveal the label.
        multiscale = cast(Multiscale, self.bijection)
        top_prior = cast(Chain, multiscale.levels[-1]).steps[-1]
        top = code[:, multiscale.slices[f"level{len(multiscale.levels)}"]]
        top, _ = top_prior.inverse(top.unflatten(1, multiscale.parts[-1]), labels)
        logits = self.classifier(top.mean((2, 3)))
        bits = cross_entropy(logits, labels) / math.log(2)
        return {"classifier": self.classifier_weight * bits}


def _permute(name: PermutationName, channels: int) -> Bijection:
    if name == "plain":
        return InvertibleConv1x1(channels)
    if name == "lu":
        return InvertibleConv1x1LU(channels)
    return Reverse() if name == "reverse" else random_permutation(channels)


def _dequantiser(name: DequantisationName, channels: int, bins: int, width: int) -> Dequantiser:
    """Uniform, or a flow of four couplings conditioned on the image and a sigmoid (Flow++, section 3.1)."""
    if name == "uniform":
        return UniformDequantiser(bins)

    def coupling(keep_first: bool) -> Bijection:
        wide = 4 * channels
        network = GlowNetwork(wide // 2, wide, min(width, 64), context_channels=wide)
        return AffineCoupling(Halves(keep_first), SqueezedContext(network), make_scale("two-sided"))

    couplings = [coupling(keep_first=i % 2 == 0) for i in range(4)]
    return VariationalDequantiser(Chain(Squeeze(), *couplings, Inverse(Squeeze()), Sigmoid()), bins)
