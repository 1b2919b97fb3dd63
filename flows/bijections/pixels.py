"""Elementwise maps of pixel values: centring, RealNVP's logit, and the sigmoid."""

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

from flows.bijections.base import Bijection, Example, Mapped
from flows.core.numerics import sum_per_example

__all__ = ["Centre", "Logit", "Sigmoid"]


class Centre(Bijection):
    """Centring z = (x − ½)·width, from [0, 1] to [−width/2, width/2].

    Glow uses width 1, NICE on CIFAR-10 width 2.
    """

    constant_log_det = True

    def __init__(self, width: float = 1.0):
        super().__init__()
        self.width = width

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return (x - 0.5) * self.width, self._log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z / self.width + 0.5, -self._log_det(z)

    def _log_det(self, x: Tensor) -> Tensor:
        return x.new_full((x.shape[0],), x[0].numel() * math.log(self.width))

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"width 2": Example(cls(2.0), (2, 2, 2), interval=(0.0, 1.0))}


class Logit(Bijection):
    """Logit z = logit(α + (1 − 2α)·x) for x in [0, 1] (RealNVP §4.1, with α = 0.05 as in the released code).

    log|det| = Σ softplus(z) + softplus(−z) + log(1 − 2α). The paper prints α + (1 − α)·x, which reaches 1 at
    x = 1; the released code has 1 − 2α. The inverse also undoes the affine map to [α, 1 − α], which the
    released sampler omits.

    Args:
        alpha: Distance α of the logit's argument from 0 and 1.
    """

    def __init__(self, alpha: float = 0.05):
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        z = torch.logit(self.alpha + (1 - 2 * self.alpha) * x)
        return z, self._log_det(z)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return (torch.sigmoid(z) - self.alpha) / (1 - 2 * self.alpha), -self._log_det(z)

    def _log_det(self, z: Tensor) -> Tensor:
        return sum_per_example(softplus(z) + softplus(-z) + math.log(1 - 2 * self.alpha))

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"image": Example(cls(), (1, 2, 3), interval=(0.0, 1.0))}


class Sigmoid(Bijection):
    """Sigmoid z = 1 / (1 + exp(−x)), ℝ to (0, 1): the last layer of a variational dequantiser's flow."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return torch.sigmoid(x), sum_per_example(logsigmoid(x) + logsigmoid(-x))

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        x = torch.logit(z)
        return x, -sum_per_example(logsigmoid(x) + logsigmoid(-x))

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"image": Example(cls(), (1, 2, 3))}
