"""Exponential moving average of the weights, by torch's own AveragedModel."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from flows.stored import StoredModule

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage(AveragedModel):
    """averaged ← d·averaged + (1 − d)·current with d = min(decay, (1 + n)/(10 + n)) at update n.

    The ramp lets short runs forget their first weights. Buffers (permutations, running statistics,
    flags) are copied, not averaged. Build it after data-dependent initialisation.
    """

    def __init__(self, model: nn.Module, decay: float):
        def average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
            # On the device of the counter: reading its value would wait for an accelerator in every step.
            n = torch.as_tensor(updates, dtype=torch.float64)
            d = torch.clamp((1 + n) / (10 + n), max=decay)
            for mean, value in zip(averaged, current, strict=True):
                mean.lerp_(value, (1 - d).to(mean.dtype))

        super().__init__(model, multi_avg_fn=average)
        self.requires_grad_(False)

    @property
    def model(self) -> StoredModule:
        """The averaged model, in eval mode."""
        return cast(StoredModule, self.module.eval())
