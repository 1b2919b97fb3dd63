"""Standard factorised priors for flat codes."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import softplus

from flows.core.checks import check_choice
from flows.core.numerics import Keys, normal_rows, uniform_rows

__all__ = ["Logistic", "Normal", "Prior", "make_prior"]

PriorName = Literal["normal", "logistic"]


class Prior(ABC):
    """Prior of a code whose entries are independent and identically distributed."""

    name: PriorName
    deviation: float
    """Standard deviation of an entry; the mean is 0."""

    @abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Compute the log-density of every entry, nats, in the shape of `z`."""

    @abstractmethod
    def sample(self, seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
        """Sample (len(keys), *shape); row i depends only on `seed` and `keys[i]`."""


class Normal(Prior):
    """Standard normal prior N(0, 1)."""

    name: PriorName = "normal"
    deviation = 1.0

    def log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * (z.square() + math.log(2 * math.pi))

    def sample(self, seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
        return normal_rows(seed, keys, shape, like)


class Logistic(Prior):
    """Standard logistic prior, log p = −softplus(z) − softplus(−z) (NICE §3.4)."""

    name: PriorName = "logistic"
    deviation = math.pi / math.sqrt(3)

    def log_prob(self, z: Tensor) -> Tensor:
        return -softplus(z) - softplus(-z)

    def sample(self, seed: int | Tensor, keys: Keys, shape: Sequence[int], like: Tensor) -> Tensor:
        u = uniform_rows(seed, keys, shape, like)
        return torch.logit(u, eps=torch.finfo(u.dtype).eps)


def make_prior(name: PriorName) -> Prior:
    """Create the prior called `name`."""
    check_choice("prior", name, PriorName)
    return Normal() if name == "normal" else Logistic()
