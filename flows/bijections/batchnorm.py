"""Batch normalisation as a bijection (RealNVP §3.7 and appendix E)."""

import torch
from torch import Tensor

from flows.bijections.base import Bijection, Example, Mapped
from flows.bijections.partition import Checkerboard, Halves, Partition
from flows.memory import is_recomputing
from flows.numerics import batch_moments, sum_per_example


class BatchNorm(Bijection):
    """changed' = (changed − μ) / √(σ² + ε), log|det| = −½ Σ log(σ² + ε); what a coupling kept stays.

    In training mode the forward direction uses the batch's statistics, with gradients through them, and
    updates the running ones; they are taken over all ranks. In eval mode, and in the inverse, the running
    statistics are used: only then is this a map of single examples. For a checkerboard the statistics
    run over the changed pixels *and* the zeros in their midst, as in the released code.

    Args:
        partition: that of the coupling before it.
        channels: of the changed part.
        lag: 0 normalises by the batch alone (released code); towards 1 by the running average, through
            which gradients reach the current batch (paper, equations 21, 22).
        momentum: weight of the current batch in the running statistics.
        epsilon: ε.
    """

    uses_batch_statistics = True
    mean: Tensor
    variance: Tensor

    def __init__(
        self,
        partition: Partition,
        channels: int,
        lag: float = 0.0,
        momentum: float = 0.1,
        epsilon: float = 1e-4,
    ):
        super().__init__()
        self.partition = partition
        self.lag = lag
        self.momentum = momentum
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(channels))
        self.register_buffer("variance", torch.ones(channels))

    def batch_statistics(self, changed: Tensor) -> tuple[Tensor, Tensor]:
        """(μ, σ²) to normalise this batch by, each (1, channels, 1, 1); updates the running ones."""
        old_mean, old_variance = (value.clone() for value in self.running_statistics())
        mean, variance = batch_moments(changed)
        if not is_recomputing():
            with torch.no_grad():
                self.mean.lerp_(mean.flatten(), self.momentum)
                self.variance.lerp_(variance.flatten(), self.momentum)
        if self.lag:
            mean = torch.lerp(mean, old_mean, self.lag)
            variance = torch.lerp(variance, old_variance, self.lag)
        return mean, variance

    def running_statistics(self) -> tuple[Tensor, Tensor]:
        """(μ, σ²), each (1, channels, 1, 1)."""
        return self.mean.view(1, -1, 1, 1), self.variance.view(1, -1, 1, 1)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(x)
        statistics = self.batch_statistics(changed) if self.training else self.running_statistics()
        mean, log_std = self._on_changed(changed, *statistics)
        return self.partition.merge(kept, (changed - mean) * (-log_std).exp()), -sum_per_example(log_std)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        kept, changed = self.partition.split(z)
        mean, log_std = self._on_changed(changed, *self.running_statistics())
        return self.partition.merge(kept, changed * log_std.exp() + mean), sum_per_example(log_std)

    def _on_changed(self, changed: Tensor, mean: Tensor, variance: Tensor) -> tuple[Tensor, Tensor]:
        """(mean, ½ log(variance + ε)), of the shape of `changed` and zero where the kept part stands."""
        log_std = 0.5 * (variance + self.epsilon).log()
        ones = self.partition.restrict(torch.ones_like(changed))
        return mean * ones, log_std * ones

    @classmethod
    def examples(cls) -> dict[str, Example]:
        def moved(norm: BatchNorm) -> BatchNorm:
            norm.mean.copy_(torch.linspace(-1, 1, len(norm.mean)))
            norm.variance.copy_(torch.linspace(0.3, 4, len(norm.mean)))
            return norm

        return {
            "channels": Example(moved(cls(Halves(), 2)), (4, 2, 2)),
            "checkerboard": Example(moved(cls(Checkerboard((2, 4)), 3)), (3, 2, 4)),
        }
