"""Statistics of samples, and the number of samples that they need.

A figure that the samples do not determine is NaN: "–" in tables, null in JSON. No std, mean or share is
clamped to a small number, because a quotient by it would look like a measurement.
"""

import math

import torch
from torch import Tensor

from flows.errors import UserError

ALPHA = 0.01
"""Largest p-value of what is called found, or learnt."""
FEWEST = 10
"""Minimum number of samples of an effect, an interval, a quantile or a distance between two sets."""


def check_enough(what: str, n: int, least: int = FEWEST) -> None:
    """Raise UserError if there are fewer than `least` samples.

    Args:
        what: Kind of the samples, with their purpose, e.g. "codes for an effect".
        n: Number of samples.
        least: Minimum number of samples.
    """
    if n < least:
        raise UserError(f"expected at least {least} {what}, got {n}; take more")


def std_of(values: Tensor, least: float = 0.0) -> Tensor:
    """Standard deviation of each column of values (n, k) over the rows in which it is defined: (k,).

    NaN for a column that is defined in fewer than two rows, or whose std is at most `least`.
    """
    defined = (~values.isnan()).sum(0)
    std = (values - values.nanmean(0)).square().nanmean(0).sqrt()
    return torch.where((defined > 1) & (std > least), std, torch.nan)


def interval_of_median(values: Tensor) -> tuple[float, float]:
    """95 % interval of the median of values (n,), by order statistics, for any distribution.

    The number of values below the median is binomial with n and ½. Values may be infinite; NaN for fewer than
    `FEWEST`.
    """
    n = len(values)
    if n < FEWEST:
        return math.nan, math.nan
    k = torch.arange(n + 1, dtype=torch.double)
    choices = torch.lgamma(k.new_tensor(n + 1.0)) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)
    below = (choices - n * math.log(2)).exp().cumsum(0)
    rank = int((below <= 0.025).sum())
    ordered = values.sort().values
    return float(ordered[rank - 1]), float(ordered[n - rank])


def interval(resampled: Tensor, share: float = 0.95) -> tuple[Tensor, Tensor]:
    """Central interval of resampled statistics (resamples, k): two tensors (k,); NaN if one is not finite."""
    tail = (1 - share) / 2
    known = resampled.isfinite().all(0)
    quantiles = torch.quantile(
        torch.where(known, resampled, torch.zeros_like(resampled)),
        torch.tensor([tail, 1 - tail], dtype=resampled.dtype),
        dim=0,
    )
    low, high = torch.where(known, quantiles, torch.nan)
    return low, high
