"""Batch normalisation as a bijection (RealNVP §3.7 and appendix E)."""

import torch
from torch import Tensor

from flows.bijections.base import Bijection, Example, Mapped
from flows.bijections.partition import Checkerboard, Halves, Partition
from flows.core.numerics import batch_moments, sum_per_example
from flows.memory import is_recomputing

__all__ = ["BatchNorm"]


class BatchNorm(Bijection):
    """Batch normalisation: changed' = (changed − μ) / √(σ² + ε), log|det| = −½ Σ log(σ² + ε).

    Only the part changed by the preceding coupling is normalised. In training mode the forward direction
    uses the statistics of the batch over all ranks, with gradients through them, and updates the running
    statistics. Eval mode and the inverse use the running statistics; only then does the map act on single
    examples. With a checkerboard, the statistics cover the changed pixels *and* the zeros between them, as in
    the released code.

    Args:
        partition: Partition of the preceding coupling.
        channels: Number of channels of the changed part.
        lag: Weight of the running average in the statistics. 0 normalises by the batch alone (released
            code), larger values by a running average through which gradients reach the current batch (paper,
            equations 21, 22).
        momentum: Weight of the current batch in the running statistics.
        epsilon: Constant ε added to the variance.
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
        """Return (μ, σ²) for this batch, each (1, channels, 1, 1), and update the running statistics."""
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
        """Running (μ, σ²), each (1, channels, 1, 1)."""
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
        """(mean, ½ log(variance + ε)), shaped like `changed` and zero at the kept positions."""
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
