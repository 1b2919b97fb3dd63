"""Scale functions, which map the raw network output of an affine coupling to a log-scale.

The choice decides whether a *trained* flow can be inverted away from its data. A scale that can approach 0
loses its inverse there although the loss looks normal; a scale within [½, 2] does not, without a measurable
cost in bits/dim (README, docs/guides/numerics.md).
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from flows.core.checks import check_choice

__all__ = ["Exponential", "LearnedTanh", "Scale", "SigmoidScale", "TwoSided"]

ScaleName = Literal["two-sided", "sigmoid", "tanh", "exp"]


class Scale(nn.Module, ABC):
    """Map from raw network outputs (any shape) to log-scales of the same shape.

    Attributes:
        has_slope: Whether `slope` is implemented, which hand-written gradients need (`execution.rows`).
    """

    has_slope: ClassVar[bool] = False

    @abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """Compute log s."""

    def slope(self, log_scale: Tensor) -> Tensor:
        """Compute d log s / d raw from log s; for scales without parameters."""
        raise TypeError(f"{type(self).__name__} does not implement slope")


class TwoSided(Scale):
    """Two-sided scale: log s = log b · tanh(raw), so s ∈ [1/b, b] and s = 1 at raw = 0; by default b = 2.

    Follows Behrmann et al. 2020 (arXiv 2006.09347), section 6. The models of this package use it by default.
    """

    has_slope = True

    def __init__(self, bound: float = 2.0):
        super().__init__()
        self.log_bound = math.log(bound)

    def forward(self, raw: Tensor) -> Tensor:
        return self.log_bound * torch.tanh(raw)

    def slope(self, log_scale: Tensor) -> Tensor:
        return self.log_bound - log_scale.square() / self.log_bound


class SigmoidScale(Scale):
    """Scale of Glow's released code: s = sigmoid(raw + 2) ∈ (0, 1), not bounded away from 0."""

    has_slope = True

    def forward(self, raw: Tensor) -> Tensor:
        return logsigmoid(raw + 2.0)

    def slope(self, log_scale: Tensor) -> Tensor:
        return -torch.expm1(log_scale)  # 1 − s


class LearnedTanh(Scale):
    """Scale of RealNVP's released code: log s = c · tanh(raw) with one learned scalar c.

    Args:
        start: Initial value of c. RealNVP has 0 in checkerboard couplings and 1 in channel couplings.
    """

    def __init__(self, start: float = 1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(start)))

    def forward(self, raw: Tensor) -> Tensor:
        return self.factor * torch.tanh(raw)


class Exponential(Scale):
    """Unbounded scale as printed in the papers: log s = raw (RealNVP equation 8, Glow table 1)."""

    has_slope = True

    def forward(self, raw: Tensor) -> Tensor:
        return raw

    def slope(self, log_scale: Tensor) -> Tensor:
        return torch.ones_like(log_scale)


def make_scale(name: ScaleName, start: float = 1.0) -> Scale:
    """Create the scale called `name`; `start` is the initial value of RealNVP's learned factor."""
    forms: dict[str, type[Scale]] = {
        "two-sided": TwoSided,
        "sigmoid": SigmoidScale,
        "exp": Exponential,
    }
    check_choice("scale", name, ScaleName)
    if name == "tanh":
        return LearnedTanh(start)
    return forms[name]()
