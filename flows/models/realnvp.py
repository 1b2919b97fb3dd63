"""RealNVP: Density Estimation Using Real NVP (Dinh, Sohl-Dickstein and Bengio 2017, arXiv 1605.08803)."""

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from torch import Tensor

from flows.bijections.base import Bijection, Inverse
from flows.bijections.batchnorm import BatchNorm
from flows.bijections.chain import Chain
from flows.bijections.coupling import AffineCoupling
from flows.bijections.dequantise import UniformDequantiser
from flows.bijections.multiscale import Multiscale
from flows.bijections.partition import Checkerboard, Halves, Partition
from flows.bijections.pixels import Logit
from flows.bijections.scales import LearnedTanh, ScaleName, make_scale
from flows.bijections.squeeze import OrderedSqueeze, Squeeze
from flows.core.bounds import Bins, ImageShape, NonNegativeFloat, PositiveFloat, PositiveInt, ShareBelowHalf
from flows.models.flow import Flow
from flows.models.priors import Normal
from flows.networks.resnet import RealNVPNetwork, WeightNormConv2d

__all__ = ["RealNVP"]

Flavour = Literal["official", "paper"]


class RealNVP(Flow):
    """Multiscale flow of a logit, affine couplings and batch normalisation.

    Each level has three checkerboard couplings, a squeeze and three channel couplings, after which half of
    the channels are split off. The last level has only four checkerboard couplings. Batch normalisation of
    the changed part follows every coupling. The hidden width doubles from level to level and is twice as
    large in channel couplings.

    The flavour `official` follows the released code: (x + t)·s, and normalisation by the batch alone. `paper`
    follows the text: x·s + t, and normalisation by a running average with gradients through the current
    batch. Both work with any scale; code and paper have `tanh` (a learned factor times tanh, 0 at
    initialisation in checkerboard couplings); the default here is `two-sided`.

    Args:
        image_shape: Image shape (C, H, W).
        bins: Number of grey levels, 256 for 8-bit images.
        levels: Number of levels; 4 reduce 32×32 images to 4×4. The published model of CIFAR-10 has 2.
        width: Number of hidden channels of the first level's checkerboard couplings.
        blocks: Number of residual blocks of each coupling network.
        scale: Scale function of the couplings.
        flavour: Variant, `official` or `paper`.
        input_bound: Bound on the magnitude of a coupling network's normalised input, so that the inverse is
            accurate away from the data; None for the published form.
        alpha: Distance α of the logit's argument from 0 and 1.
        weight_penalty: Weight of a penalty in the loss, the squared norm of the weight-norm gains and of the
            checkerboard couplings' learned factors; in nats per image as in the released code, whatever the
            unit of the logged loss.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        levels: PositiveInt = 4,
        width: PositiveInt = 32,
        blocks: PositiveInt = 4,
        scale: ScaleName = "two-sided",
        flavour: Flavour = "official",
        input_bound: PositiveFloat | None = 6.0,
        alpha: ShareBelowHalf = 0.05,
        weight_penalty: NonNegativeFloat = 5e-5,
    ):
        super().__init__()
        self.weight_penalty = weight_penalty

        def normalised(
            divide: Callable[[], Partition], kept: int, changed: int, hidden: int
        ) -> list[Bijection]:
            partition = divide()
            mask = partition.mask if isinstance(partition, Checkerboard) else None
            network = RealNVPNetwork(kept, 2 * changed, hidden, blocks, mask, input_bound)
            start = 1.0 if mask is None else 0.0
            coupling = AffineCoupling(
                partition, network, make_scale(scale, start), shift_first=flavour == "official"
            )
            lag = 0.0 if flavour == "official" else 0.9
            return [coupling, BatchNorm(divide(), changed, lag)]

        def checkerboards(n: int, shape: tuple[int, ...], hidden: int) -> list[Bijection]:
            channels, height, side = shape
            boards = [partial(Checkerboard, (height, side), keep_even=i % 2 == 0) for i in range(n)]
            return [step for board in boards for step in normalised(board, channels, channels, hidden)]

        def halves(n: int, channels: int, hidden: int) -> list[Bijection]:
            cuts = [partial(Halves, keep_first=i % 2 == 0) for i in range(n)]
            half = channels // 2
            return [step for cut in cuts for step in normalised(cut, half, half, hidden)]

        chains, shape = [], tuple(image_shape)
        for level in range(levels):
            hidden = width * 2**level
            if level + 1 == levels:
                chains.append(Chain(*checkerboards(4, shape, hidden)))
                break
            squeezed = Squeeze().output_shape(shape)
            chains.append(
                Chain(
                    *checkerboards(3, shape, hidden),
                    Squeeze(),
                    *halves(3, squeezed[0], 2 * hidden),
                    Inverse(Squeeze()),
                    OrderedSqueeze(),
                )
            )
            shape = (squeezed[0] // 2, *squeezed[1:])

        multiscale = Multiscale([Chain(Logit(alpha), *chains[0].steps), *chains[1:]], tuple(image_shape))
        self.assemble(
            image_shape,
            multiscale,
            UniformDequantiser(bins),
            Normal(),
            multiscale.slices,
            maps=multiscale.maps,
        )

    def penalties(self, code: Tensor, labels: Tensor | None) -> dict[str, Tensor]:
        if not self.weight_penalty:
            return {}
        total = code.new_zeros(())
        for module in self.modules():
            if isinstance(module, WeightNormConv2d) and module.gain is not None:
                total = total + module.gain.square().sum()
            if isinstance(module, AffineCoupling) and isinstance(module.partition, Checkerboard):
                if isinstance(module.scale, LearnedTanh):
                    total = total + module.scale.factor.square()
        dimensions = math.prod(self.image_shape)
        return {"weights": self.weight_penalty * total / (dimensions * math.log(2))}
