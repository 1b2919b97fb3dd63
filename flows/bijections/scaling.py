"""Elementwise scalings and shifts: NICE's diagonal scaling, Glow's ActNorm, learned priors."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped
from flows.bijections.channels import ChannelAffines, ChannelMap
from flows.core.data_dependent import ChannelAffine
from flows.core.numerics import sum_per_example
from flows.errors import UserError

__all__ = ["ActNorm", "DiagonalScaling", "LearnedPrior"]


class DiagonalScaling(Bijection):
    """Diagonal scaling z = exp(s) ⊙ x; log|det| = Σ s (NICE §3.3, equation 6 of the released arXiv text).

    Args:
        size: Dimension D of the vectors (batch, D).
    """

    constant_log_det = True

    def __init__(self, size: int):
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return x * self.log_scale.exp(), self.log_scale.sum().expand(x.shape[0])

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z * (-self.log_scale).exp(), -self.log_scale.sum().expand(z.shape[0])

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"vector": Example(cls(5), (5,))}


class ActNorm(ChannelAffine, ChannelMap):
    """Activation normalisation z = (x + bias)·exp(3·logs), per channel; log|det| = H·W·Σ 3·logs (Glow §3.1).

    The map is the identity until `initialise` sets its parameters from a batch.

    Args:
        channels: Number of channels C of inputs (batch, C) or (batch, C, H, W).
    """

    dense = False

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        bias, log_scale = self.of_rank(x.dim())
        return (x + bias) * log_scale.exp(), _log_det(x, log_scale)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        bias, log_scale = self.of_rank(z.dim())
        return z * (-log_scale).exp() - bias, -_log_det(z, log_scale)

    @classmethod
    def stack(cls, maps: Sequence["ActNorm"]) -> ChannelAffines:
        log_scale = cls.logs_factor * torch.stack([layer.logs for layer in maps])
        scale = log_scale.exp()
        offset = torch.stack([layer.bias for layer in maps]) * scale
        return ChannelAffines(scale.diag_embed(), offset, log_scale.sum(1))

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"image": Example(cls(3), (3, 2, 4)), "vector": Example(cls(5), (5,))}


def _log_det(x: Tensor, log_scale: Tensor) -> Tensor:
    """Compute log|det| of a per-channel scaling, summed over pixels: (batch,)."""
    pixels = x[0, 0].numel()
    return (pixels * log_scale.sum()).expand(x.shape[0])


class LearnedPrior(Bijection):
    """Whitening by a learned Gaussian, per channel and per class: z = (x − mean)·exp(−log_std).

    This is Glow's learned top prior N(mean, std²), written as a layer followed by a standard prior; the
    density is the same. With classes, mean and log-std are those of the label in `context` (released code:
    `learntop`, and a zero-initialised linear map of the label). The layer is initialised as the identity.

    Args:
        channels: Number of channels C of inputs (batch, C, H, W).
        num_classes: Number of classes; 0 for an unconditional prior.
        bound: Largest std. If given, log_std is `log(bound)·tanh` of its parameter, so std ∈ [1/bound, bound]
            (two-sided, as in `flows.bijections.scales`).
    """

    def __init__(self, channels: int, num_classes: int = 0, bound: float | None = None):
        super().__init__()
        self.table = nn.Parameter(torch.zeros(max(1, num_classes), 2, channels))
        self.num_classes = num_classes
        self.log_bound = None if bound is None else math.log(bound)

    def statistics(self, x: Tensor, labels: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return (mean, log_std), each (batch or 1, C, 1, 1)."""
        if self.num_classes and labels is None:
            raise UserError(f"this model is class-conditional: expected labels in [0, {self.num_classes})")
        rows = self.table if not self.num_classes else self.table[labels]
        mean, log_std = rows[..., None, None].to(x.dtype).unbind(1)
        if self.log_bound is not None:
            log_std = self.log_bound * torch.tanh(log_std)
        return mean, log_std

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        mean, log_std = self.statistics(x, context)
        return (x - mean) * (-log_std).exp(), -sum_per_example(log_std.expand_as(x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        mean, log_std = self.statistics(z, context)
        return z * log_std.exp() + mean, sum_per_example(log_std.expand_as(z))

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {
            "unconditional": Example(cls(3), (3, 2, 2)),
            "by class": Example(cls(3, num_classes=4), (3, 2, 2), num_classes=4),
            "bounded": Example(cls(3, bound=2.0), (3, 2, 2)),
        }
