"""RealNVP: Density Estimation Using Real NVP (Dinh, Sohl-Dickstein and Bengio 2017, arXiv 1605.08803)."""

import math
from collections.abc import Callable, Sequence
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
from flows.checks import check_choice, check_positive
from flows.models.flow import Flow
from flows.models.priors import Normal
from flows.networks.resnet import RealNVPNetwork, WeightNormConv2d

Flavour = Literal["official", "paper"]


class RealNVP(Flow):
    """Logit, then per level three checkerboard couplings, squeeze, three channel couplings; half leaves.

    The last level has four checkerboard couplings and nothing else. Every coupling is followed by batch
    normalisation of what it changed. The hidden width doubles from level to level and is twice as large
    in channel couplings.

    `official` follows the released code: (x + t)·s, normalisation by the batch alone. `paper` follows the
    text: x·s + t, normalisation by a running average with gradients through the current batch. Either takes
    any scale; code and paper have `tanh` (a learned factor times tanh, 0 at the start of checkerboard
    couplings), the house's default is `two-sided`.

    Args:
        image_shape: (C, H, W).
        bins: grey levels, 256 for 8-bit images.
        levels: scales; 4 take 32×32 images to 4×4, CIFAR-10's published model has 2.
        width: hidden channels of the first level's checkerboard couplings.
        blocks: residual blocks of every coupling network.
        scale: form of the couplings' scales.
        flavour: see above.
        input_bound: largest normalised value that a coupling network sees of the kept part, for an inverse
            that holds away from the data; null is the published form.
        alpha: of the logit.
        weight_penalty: weight of the squared norm of weight-norm gains and of the checkerboard couplings'
            learned factors in the loss; in nats per image as in the released code, whatever unit the loss
            is logged in.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        bins: int = 256,
        levels: int = 4,
        width: int = 32,
        blocks: int = 4,
        scale: ScaleName = "two-sided",
        flavour: Flavour = "official",
        input_bound: float | None = 6.0,
        alpha: float = 0.05,
        weight_penalty: float = 5e-5,
    ):
        super().__init__()
        check_positive(levels=levels, width=width, blocks=blocks)
        check_choice("scale", scale, ScaleName)
        check_choice("flavour", flavour, Flavour)
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
