"""How an affine coupling turns a raw network output into a log-scale.

The choice decides whether a *trained* flow can be inverted away from its data. A scale that may come
close to 0 loses its inverse there while the loss looks healthy; a scale kept within [½, 2] does not, at
no cost in bits/dim that we could measure (README, docs/numerics.md).
"""

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from flows.checks import check_choice

ScaleName = Literal["two-sided", "sigmoid", "tanh", "exp"]


class Scale(nn.Module, ABC):
    """A map from raw outputs (any shape) to log-scales of the same shape.

    Attributes:
        has_slope: `slope` is implemented; needed where gradients are taken by hand (`bijections.rows`).
    """

    has_slope: ClassVar[bool] = False

    @abstractmethod
    def forward(self, raw: Tensor) -> Tensor:
        """log s."""

    def slope(self, log_scale: Tensor) -> Tensor:
        """d log s / d raw, as a function of log s; for scales without parameters."""
        raise TypeError(f"{type(self).__name__} has no slope")


class TwoSided(Scale):
    """log s = log b · tanh(raw), so s ∈ [1/b, b]; 1 at raw = 0. The house's default, b = 2.

    After Behrmann et al. 2020 (arXiv 2006.09347), section 6.
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
    """s = sigmoid(raw + 2) ∈ (0, 1): Glow's released code. Not bounded away from 0."""

    has_slope = True

    def forward(self, raw: Tensor) -> Tensor:
        return logsigmoid(raw + 2.0)

    def slope(self, log_scale: Tensor) -> Tensor:
        return -torch.expm1(log_scale)  # 1 − s


class LearnedTanh(Scale):
    """log s = c · tanh(raw) with one learned scalar c: RealNVP's released code.

    Args:
        start: c at initialisation; 0 in its checkerboard couplings, 1 in its channel couplings.
    """

    def __init__(self, start: float = 1.0):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(float(start)))

    def forward(self, raw: Tensor) -> Tensor:
        return self.factor * torch.tanh(raw)


class Exponential(Scale):
    """log s = raw: the papers' equations as printed (RealNVP equation 8, Glow table 1). Unbounded."""

    has_slope = True

    def forward(self, raw: Tensor) -> Tensor:
        return raw

    def slope(self, log_scale: Tensor) -> Tensor:
        return torch.ones_like(log_scale)


def make_scale(name: ScaleName, start: float = 1.0) -> Scale:
    """The scale of that name; `start` is for RealNVP's learned factor."""
    forms: dict[str, type[Scale]] = {
        "two-sided": TwoSided,
        "sigmoid": SigmoidScale,
        "exp": Exponential,
    }
    check_choice("scale", name, ScaleName)
    if name == "tanh":
        return LearnedTanh(start)
    return forms[name]()
