"""NICE: Non-linear Independent Components Estimation (Dinh, Krueger and Bengio 2015, arXiv 1410.8516)."""

from collections.abc import Sequence
from typing import Literal

from flows.bijections.base import Bijection
from flows.bijections.chain import Chain
from flows.bijections.coupling import AdditiveCoupling
from flows.bijections.dequantise import UniformDequantiser
from flows.bijections.linear import Whitening
from flows.bijections.partition import Halves, OddEven, Partition
from flows.bijections.permutation import Reverse, odd_even_permutation
from flows.bijections.pixels import Centre
from flows.bijections.scaling import DiagonalScaling
from flows.bijections.squeeze import Flatten
from flows.checks import check_choice, check_positive
from flows.errors import UserError
from flows.models.flow import Flow
from flows.models.priors import PriorName, make_prior
from flows.networks.mlp import ReluMLP

OrderName = Literal["interleaved", "reversed", "halves"]


class NICE(Flow):
    """Flatten, additive couplings on alternating halves of the pixels, a diagonal scaling.

    `order` says which halves: `interleaved` keeps odd and changes even entries, then the reverse (the
    paper's text); `reversed` sorts odd before even once and reverses the vector after every coupling (the
    released code on MNIST); `halves` alternates first and second half (the released code on SVHN, CIFAR-10
    and TFD, up to the order of the entries). The paper's and the released configurations differ in sizes,
    priors and optimiser too: configs/paper/.

    Args:
        image_shape: (C, H, W).
        bins: grey levels, 256 for 8-bit images.
        couplings: how many.
        hidden_layers: of each coupling's network, or one number per coupling.
        width: units per hidden layer.
        prior: `logistic` or `normal`.
        order: see above.
        value_range: width of the interval that [0, 1] is centred and stretched to (2 on CIFAR-10), or None to
            leave pixels as they are.
        whiten: None, or the ε of ZCA whitening (0 is exact), fitted on the first training images.
        uniform_start: weights start uniform within ± this (0.01 in the released code); None is torch's
            default.
    """

    def __init__(
        self,
        image_shape: Sequence[int],
        bins: int = 256,
        couplings: int = 4,
        hidden_layers: int | list[int] = 5,
        width: int = 1000,
        prior: PriorName = "logistic",
        order: OrderName = "interleaved",
        value_range: float | None = None,
        whiten: float | None = None,
        uniform_start: float | None = None,
    ):
        super().__init__()
        channels, height, side = image_shape
        size = channels * height * side
        depths = [hidden_layers] * couplings if isinstance(hidden_layers, int) else hidden_layers
        check_choice("order", order, OrderName)
        check_positive(couplings=couplings, hidden_layers=min(depths, default=1), width=width)
        if len(depths) != couplings:
            raise UserError(
                f"hidden_layers: expected one number, or one for each of {couplings} couplings, got {depths}"
            )

        def coupling(number: int) -> Bijection:
            partition: Partition
            if order == "interleaved":
                keep_odd = number % 2 == 0
                kept = size // 2 if keep_odd else size - size // 2
                partition = OddEven(keep_odd)
            else:
                keep_first = order == "reversed" or number % 2 == 0
                kept = size // 2 if keep_first else size - size // 2
                partition = Halves(keep_first)
            network = ReluMLP(kept, size - kept, width, depths[number], uniform_start)
            return AdditiveCoupling(partition, network)

        steps: list[Bijection] = [] if value_range is None else [Centre(value_range)]
        steps.append(Flatten((channels, height, side)))
        if whiten is not None:
            steps.append(Whitening(size, whiten))
            # A covariance of D dimensions takes many times D images.
            self.initialisation_images = max(10_000, 8 * size)
        if order == "reversed":
            steps.append(odd_even_permutation(size))
        for number in range(couplings):
            steps.append(coupling(number))
            if order == "reversed":
                steps.append(Reverse())
        steps.append(DiagonalScaling(size))
        self.assemble(image_shape, Chain(*steps), UniformDequantiser(bins), make_prior(prior))
