"""Exponential moving average of the weights, based on torch's AveragedModel."""

from typing import cast

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from flows.core.numerics import has_double
from flows.storage.stored import StoredModule

Tensors = tuple[Tensor, ...] | list[Tensor]


class WeightAverage(AveragedModel):
    """Moving average of a model's weights.

    Update n: averaged ← d·averaged + (1 − d)·current with d = min(decay, (1 + n)/(10 + n)). The ramp lets
    short runs forget their initial weights. Buffers (permutations, running statistics, flags) are copied, not
    averaged. Construct it after data-dependent initialisation.
    """

    def __init__(self, model: nn.Module, decay: float):
        def average(averaged: Tensors, current: Tensors, updates: Tensor | int) -> None:
            # On the counter's device: reading its value would synchronise an accelerator in every step.
            n = torch.as_tensor(updates)
            n = n.to(torch.float64 if has_double(n.device) else torch.float32)
            d = torch.clamp((1 + n) / (10 + n), max=decay)
            for mean, value in zip(averaged, current, strict=True):
                mean.lerp_(value, (1 - d).to(mean.dtype))

        super().__init__(model, multi_avg_fn=average)
        self.requires_grad_(False)

    @property
    def model(self) -> StoredModule:
        """Averaged model, in eval mode."""
        return cast(StoredModule, self.module.eval())
