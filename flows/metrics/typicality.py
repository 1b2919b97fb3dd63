"""How far codes are from where a model's samples come from."""

import torch
from torch import Tensor

from flows.models.base import LatentModel


def typicality(model: LatentModel, code: Tensor, space: str) -> Tensor:
    """|z|/√(E|z|²) − 1 of codes (batch, D), z in the prior space: (batch,).

    Of a standard normal E|z|² is D. 0 is typical; below 0 codes are nearer to the middle than samples are,
    above it farther out: in many dimensions both are where hardly a sample lies.

    Raises:
        ValueError: the model has no map from this space to its prior space.
    """
    prior_space = next(iter(model.spaces.values()))
    assert prior_space.prior is not None
    z = model.convert(code, space, prior_space.name).flatten(1)
    usual = prior_space.prior.deviation * z.shape[1] ** 0.5
    return z.norm(dim=1) / usual - 1


@torch.no_grad()
def largest_typical_share(
    model: LatentModel, code: Tensor, step: Tensor, space: str, budget: float, rounds: int = 24
) -> Tensor:
    """How much of a step codes can take without leaving a budget of typicality: (batch,) in [0, 1].

    The largest share s, found by bisection between 0 and 1, at which |typicality(code + s·step)| is at most
    the budget, or at most what it was before the step, where that was more.

    Args:
        model: one with a map from this space to its prior space.
        code: (batch, D).
        step: (batch, D), added.
        space: of both.
        budget: largest |typicality|.
        rounds: of bisection.
    """
    allowed = typicality(model, code, space).abs().clamp(min=budget) + 1e-6

    def fits(share: Tensor) -> Tensor:
        return typicality(model, code + share[:, None] * step, space).abs() <= allowed

    low, high = torch.zeros_like(allowed), torch.ones_like(allowed)
    whole = fits(high)
    for _ in range(rounds):
        middle = (low + high) / 2
        inside = fits(middle)
        low, high = torch.where(inside, middle, low), torch.where(inside, high, middle)
    return torch.where(whole, torch.ones_like(low), low)
