"""Mine: affine couplings of vectors (after Dinh, Sohl-Dickstein and Bengio 2017, arXiv 1605.08803)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flows.bijections import AffineCoupling, Bijection, Chain, Flatten, Halves, TwoSided, UniformDequantiser
from flows.bijections.base import Example
from flows.models import Flow, make_prior
from flows.networks.mlp import ReluMLP


class Reflection(Bijection):
    """Householder reflection z = x − 2 v vᵀx / |v|²; log|det| = 0. It is its own inverse.

    Args:
        size: Dimension D of the vectors (batch, D).
    """

    constant_log_det = True

    def __init__(self, size: int):
        super().__init__()
        self.normal = nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        # Not a matrix product, which would run in bf16 under autocast.
        along = (x * self.normal).sum(1) / self.normal.square().sum()
        return x - 2 * along[:, None] * self.normal, x.new_zeros(len(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.forward(z, context)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"five dimensions": Example(cls(5), (5,))}


class Mine(Flow):
    """Affine couplings on the halves of the flattened image, with a reflection after each.

    Args:
        image_shape: (C, H, W).
        bins: Number of grey levels.
        couplings: Number of couplings.
        width: Hidden width of the coupling networks.
    """

    def __init__(self, image_shape: Sequence[int], bins: int = 256, couplings: int = 6, width: int = 128):
        super().__init__()
        channels, height, side = image_shape
        size = channels * height * side
        steps: list[Bijection] = [Flatten((channels, height, side))]
        for _ in range(couplings):
            network = ReluMLP(size // 2, 2 * (size - size // 2), width, 2, uniform=0.01)
            steps += [AffineCoupling(Halves(), network, TwoSided()), Reflection(size)]
        self.assemble(image_shape, Chain(*steps), UniformDequantiser(bins), make_prior("normal"))
