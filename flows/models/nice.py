"""NICE: Non-linear Independent Components Estimation (Dinh, Krueger and Bengio 2015, arXiv 1410.8516)."""

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
from flows.core.bounds import Bins, ImageShape, NonNegativeFloat, PositiveFloat, PositiveInt
from flows.errors import UserError
from flows.models.flow import Flow
from flows.models.priors import PriorName, make_prior
from flows.networks.mlp import ReluMLP

__all__ = ["NICE"]

OrderName = Literal["interleaved", "reversed", "halves"]


class NICE(Flow):
    """Flow of additive couplings on alternating halves of the pixels and a diagonal scaling.

    The halves depend on `order`: `interleaved` keeps odd and changes even entries, then vice versa (the
    paper's text); `reversed` sorts odd before even entries once and reverses the vector after every coupling
    (the released code on MNIST); `halves` alternates between first and second half (the released code on
    SVHN, CIFAR-10 and TFD, up to the order of the entries). The configurations of paper and released code
    also differ in sizes, priors and optimiser; see configs/paper/.

    Args:
        image_shape: Image shape (C, H, W).
        bins: Number of grey levels, 256 for 8-bit images.
        couplings: Number of couplings.
        hidden_layers: Number of hidden layers of the coupling networks, one for all or one per coupling.
        width: Number of units of each hidden layer.
        prior: Prior of the code, `logistic` or `normal`.
        order: Order of the entries, `interleaved`, `reversed` or `halves`.
        value_range: Width of the centred interval to which [0, 1] is mapped (2 on CIFAR-10); None leaves the
            pixels unchanged.
        whiten: Constant ε of ZCA whitening, fitted to the first training images (0 is exact); None for no
            whitening.
        uniform_start: Bound u of the initial weights ~ U(−u, u) (0.01 in the released code); None keeps
            PyTorch's default.

    Raises:
        UserError: `hidden_layers` has not one entry per coupling.
    """

    def __init__(
        self,
        image_shape: ImageShape,
        bins: Bins = 256,
        couplings: PositiveInt = 4,
        hidden_layers: PositiveInt | list[PositiveInt] = 5,
        width: PositiveInt = 1000,
        prior: PriorName = "logistic",
        order: OrderName = "interleaved",
        value_range: PositiveFloat | None = None,
        whiten: NonNegativeFloat | None = None,
        uniform_start: PositiveFloat | None = None,
    ):
        super().__init__()
        channels, height, side = image_shape
        size = channels * height * side
        depths = [hidden_layers] * couplings if isinstance(hidden_layers, int) else hidden_layers
        if len(depths) != couplings:
            raise UserError(
                f"hidden_layers: expected one number, or one per coupling ({couplings}), got {depths}"
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
            # The covariance in D dimensions is estimated from many times D images.
            self.initialisation_images = max(10_000, 8 * size)
        if order == "reversed":
            steps.append(odd_even_permutation(size))
        for number in range(couplings):
            steps.append(coupling(number))
            if order == "reversed":
                steps.append(Reverse())
        steps.append(DiagonalScaling(size))
        self.assemble(image_shape, Chain(*steps), UniformDequantiser(bins), make_prior(prior))
