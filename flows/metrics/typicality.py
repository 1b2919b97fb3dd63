"""Typicality of codes: their length compared with the length of samples."""

import torch
from torch import Tensor

from flows.models.base import LatentModel
from flows.models.codes import Codes

__all__ = ["limit_typicality"]


def typicality(model: LatentModel, codes: Codes) -> Tensor:
    """Relative deviation |z|/√(E|z|²) − 1 of the norm of codes, z in the prior space: (batch,).

    For a standard normal prior E|z|² is D. 0 is typical. Codes below 0 are nearer to the mean than samples,
    codes above 0 farther away; in many dimensions there are hardly any samples in either region.

    Raises:
        Unsupported: The model has no map from the codes' space to its prior space (`values_in`).
    """
    prior_space = model.prior_space
    assert prior_space.prior is not None
    z = model.convert(codes.to(model).values, codes.space, prior_space.name)
    expected = prior_space.prior.deviation * z.shape[1] ** 0.5
    return z.norm(dim=1) / expected - 1


@torch.no_grad()
def limit_typicality(model: LatentModel, start: Codes, end: Codes, budget: float, rounds: int = 24) -> Codes:
    """Return the farthest codes on the lines from `start` to `end` that stay within a typicality budget.

    Bisection finds the largest share of each line, in [0, 1], at which |typicality| is at most the budget, or
    at most that of the start if that is larger.

    Args:
        model: Model with a map from the codes' space to its prior space.
        start: n codes.
        end: n codes of the same space.
        budget: Maximum |typicality|.
        rounds: Number of bisection steps.

    Raises:
        UserError: The codes are in different spaces.
    """
    start.check_alongside(end)
    way = end.values - start.values
    here, step = start.to(model), way.to(model.device, model.dtype)
    allowed = typicality(model, here).abs().clamp(min=budget) + 1e-6

    def fits(share: Tensor) -> Tensor:
        moved = here.with_values(here.values + share[:, None] * step)
        return typicality(model, moved).abs() <= allowed

    low, high = torch.zeros_like(allowed), torch.ones_like(allowed)
    whole = fits(high)
    for _ in range(rounds):
        midpoint = (low + high) / 2
        inside = fits(midpoint)
        low, high = torch.where(inside, midpoint, low), torch.where(inside, high, midpoint)
    share = torch.where(whole, torch.ones_like(low), low).to(start.values)
    return start.with_values(start.values + share[:, None] * way)
