"""Statistics of samples, and the number of samples that they need.

A figure that the samples do not determine is NaN: "–" in tables, null in JSON. No std, mean or share is
clamped to a small number, because a quotient by it would look like a measurement.
"""

import torch
from torch import Tensor

from flows.errors import UserError

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
