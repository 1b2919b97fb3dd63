"""Linear maps across channels: Glow's invertible 1×1 convolution and NICE's whitening."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped
from flows.bijections.channels import ChannelAffines, ChannelMap, invert, mix_channels
from flows.core.data_dependent import DataDependent
from flows.core.numerics import full_precision, sum_over_ranks, to_double
from flows.errors import UserError

__all__ = ["InvertibleConv1x1", "InvertibleConv1x1LU", "Whitening"]


def _log_abs_det(weight: Tensor) -> Tensor:
    """Compute log|det| of (..., C, C) in double precision."""
    return torch.linalg.slogdet(to_double(weight)).logabsdet.to(weight)


def _pixels(x: Tensor) -> int:
    return x[0, 0].numel()


class InvertibleConv1x1(ChannelMap):
    """Invertible 1×1 convolution: z = W x at every pixel; log|det| = H·W·log|det W| (Glow §3.2, equation 9).

    W is initialised as a random rotation. The determinant is computed in double precision, as in the released
    code.

    Args:
        channels: Number of channels C.
    """

    dense = True

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(_random_rotation(channels))

    def log_abs_det(self) -> Tensor:
        """log|det W|, a scalar."""
        return _log_abs_det(self.weight)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        log_det = _pixels(x) * self.log_abs_det()
        return mix_channels(self.weight, x), log_det.expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        log_det = _pixels(z) * self.log_abs_det()
        return mix_channels(invert(self.weight), z), -log_det.expand(z.shape[0])

    @classmethod
    def stack(cls, maps: Sequence["InvertibleConv1x1"]) -> ChannelAffines:
        weight = torch.stack([layer.weight for layer in maps])
        return ChannelAffines(weight, weight.new_zeros(weight.shape[:2]), _log_abs_det(weight))

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"image": Example(cls(4), (4, 2, 3)), "one channel": Example(cls(1), (1, 2, 2))}


class InvertibleConv1x1LU(ChannelMap):
    """Invertible 1×1 convolution with W = P L (U + diag(s)); log|det W| = Σ log|s| (Glow §3.2, equation 11).

    P and the signs of s are fixed.

    Args:
        channels: Number of channels C.
    """

    dense = True
    permutation: Tensor
    signs: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        # Contiguous: torch returns the factors in column-major order, and sums over a reloaded copy would
        # differ in the last bit.
        factors = torch.linalg.lu(_random_rotation(channels))
        permutation, lower, upper = (factor.contiguous() for factor in factors)
        diagonal = upper.diagonal()
        self.register_buffer("permutation", permutation)
        self.register_buffer("signs", diagonal.sign())
        self.lower = nn.Parameter(lower.tril(-1))
        self.upper = nn.Parameter(upper.triu(1))
        self.log_s = nn.Parameter(diagonal.abs().log())

    def weight(self) -> Tensor:
        """Matrix W, (C, C)."""
        identity = torch.eye(len(self.signs), dtype=self.log_s.dtype, device=self.log_s.device)
        lower = self.lower.tril(-1) + identity
        upper = self.upper.triu(1) + (self.signs * self.log_s.exp()).diag()
        with full_precision(upper):
            return self.permutation @ lower @ upper

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        log_det = _pixels(x) * self.log_s.sum()
        return mix_channels(self.weight(), x), log_det.expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        log_det = _pixels(z) * self.log_s.sum()
        return mix_channels(invert(self.weight()), z), -log_det.expand(z.shape[0])

    @classmethod
    def stack(cls, maps: Sequence["InvertibleConv1x1LU"]) -> ChannelAffines:
        weight = torch.stack([layer.weight() for layer in maps])
        log_abs_det = torch.stack([layer.log_s for layer in maps]).sum(1)
        return ChannelAffines(weight, weight.new_zeros(weight.shape[:2]), log_abs_det)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"image": Example(cls(5), (5, 2, 3))}


def _random_rotation(channels: int) -> Tensor:
    return torch.linalg.qr(torch.randn(channels, channels)).Q.contiguous()


class Whitening(DataDependent, Bijection):
    """ZCA whitening with fixed statistics: z = W (x − mean), W = V diag(1/√(λ + ε)) Vᵀ (NICE §5.1).

    The map is the identity until it is initialised from data. Its log-determinant is part of the likelihood.

    Args:
        size: Dimension D of the vectors (batch, D).
        epsilon: Constant added to the eigenvalues λ of the covariance; 0 whitens exactly.
    """

    constant_log_det = True
    mean: Tensor
    weight: Tensor
    log_abs_det: Tensor

    def __init__(self, size: int, epsilon: float = 0.0):
        super().__init__()
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("weight", torch.eye(size))
        # Two summands: an fp32 model rounds its buffers, and this sum of thousands of logarithms needs
        # more digits when the model is evaluated in double precision.
        self.register_buffer("log_abs_det", torch.zeros(2))

    @torch.no_grad()
    def set_from(self, x: Tensor) -> None:
        """Set mean and covariance from x (n, D) of all ranks, in double precision.

        Raises:
            UserError: The covariance is singular, even with `epsilon` added.
        """
        data = to_double(x)
        count = sum_over_ranks(data.new_tensor(float(len(data))))
        mean = sum_over_ranks(data.sum(0)) / count
        covariance = sum_over_ranks((data - mean).T @ (data - mean)) / count
        eigenvalues, vectors = torch.linalg.eigh(covariance)
        eigenvalues = eigenvalues.clamp(min=0) + self.epsilon
        if eigenvalues.min() <= 1e-12 * eigenvalues.max():
            raise UserError(
                f"the covariance of {int(count)} vectors of size {x.shape[1]} is singular: give more data, "
                "dequantise it first, or set epsilon above 0"
            )
        roots = eigenvalues.sqrt()
        self.mean.copy_(mean)
        self.weight.copy_((vectors / roots) @ vectors.T)
        # Determinant of the matrix as stored, after rounding.
        exact = torch.linalg.slogdet(to_double(self.weight)).logabsdet
        rounded = exact.to(self.log_abs_det.dtype).double()
        self.log_abs_det.copy_(torch.stack([rounded, exact - rounded]))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        with full_precision(x):
            z = (x - self.mean) @ self.weight
            return z, self.log_abs_det.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        with full_precision(z):
            # Solve instead of multiplying by a stored inverse: two rounded matrices are inverses of each
            # other only to fp32 precision, even if the model is converted to double precision later.
            x = torch.linalg.solve(to_double(self.weight), to_double(z), left=False).to(z)
            return x + self.mean, -self.log_abs_det.sum().expand(z.shape[0])

    @classmethod
    def examples(cls) -> dict[str, Example]:
        fitted = cls(4)
        generator = torch.Generator().manual_seed(0)
        mixing = torch.randn(4, 4, generator=generator)
        fitted.set_from(torch.randn(200, 4, generator=generator) @ mixing + 1)
        fitted.initialised.fill_(True)
        return {"fitted": Example(fitted, (4,))}
