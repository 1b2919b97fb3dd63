"""Glow's attribute vectors: mean code with an attribute minus mean code without it."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.bounds import PositiveInt
from flows.errors import UserError
from flows.semantics.base import Score
from flows.steering.method import FEWEST, Labelled

__all__ = ["MeanDifference"]


class RunningMoments:
    """Mean and variance of vectors, accumulated in batches of any order, in float64 (Chan et al. 1983)."""

    def __init__(self, size: int):
        self.count = 0
        self.mean = torch.zeros(size, dtype=torch.float64)
        self.squares = torch.zeros(size, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Add a batch of vectors (batch, size)."""
        if not len(values):
            return
        values = values.double().cpu()
        count, mean = len(values), values.mean(0)
        total = self.count + count
        difference = mean - self.mean
        self.squares += (values - mean).square().sum(0) + difference.square() * (self.count * count / total)
        self.mean += difference * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Variance of each coordinate, (size,), with divisor count − 1."""
        return self.squares / max(1, self.count - 1)


@dataclass
class MeanDifference(Labelled):
    """Mean code with an attribute minus mean code without it (Kingma and Dhariwal 2018, section 6).

    Scores that are not probabilities are divided at the midpoint of their range.

    Args:
        batch: Number of codes that are added at a time.
    """

    batch: PositiveInt = 1000

    method = "mean-difference"

    def threshold(self, value: Tensor, score: Score) -> float:
        middle = (score.low + score.high) / 2
        high = int((value > middle).sum())
        if min(len(value) - high, high) < FEWEST:
            raise UserError(
                f"{score.name}: {len(value) - high} codes have a low score and {high} a high score, expected "
                f"at least {FEWEST} each; survey more codes (--n)"
            )
        return middle

    def normal(
        self, codes: Tensor, value: Tensor, threshold: float, size: int
    ) -> tuple[Tensor, dict[str, float]]:
        sides = {side: RunningMoments(codes.shape[1]) for side in (False, True)}
        for part, above in zip(codes.split(self.batch), (value > threshold).split(self.batch), strict=True):
            for side, moments in sides.items():
                moments.add(part[above == side])
        low, high = sides[False], sides[True]
        difference = high.mean - low.mean
        length = float(difference.norm())
        # Length expected by chance alone, as E|m̂|² = |m|² + Σ var/n.
        chance = float((low.variance / low.count + high.variance / high.count).sum().sqrt())
        evidence = {"length": length, "length_by_chance": chance, "codes": len(codes)}
        return difference / length, evidence
