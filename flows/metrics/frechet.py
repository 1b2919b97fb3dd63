"""Fréchet distance between two sets of vectors, and its floor for sets of finite size."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.numerics import to_double
from flows.core.statistics import check_enough

__all__ = ["Frechet"]


@dataclass(frozen=True)
class Frechet:
    """Fréchet distance |μ₁ − μ₂|² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½) in two parts (Dowson and Landau 1982).

    Attributes:
        mean: First part, |μ₁ − μ₂|².
        covariance: Second part, the trace.
    """

    mean: float
    covariance: float

    @property
    def total(self) -> float:
        """Sum of both parts."""
        return self.mean + self.covariance


def frechet(first: Tensor, second: Tensor) -> Frechet:
    """Fréchet distance of the normal distributions with the moments of (n, D) and (m, D) vectors, in fp64.

    Raises:
        UserError: There are fewer than two vectors in one of the sets.
    """
    check_enough("vectors for a covariance", min(len(first), len(second)), 2)
    moments = [(part.mean(0), torch.cov(part.T)) for part in map(to_double, (first, second))]
    (mean1, cov1), (mean2, cov2) = moments
    # Tr (Σ₁Σ₂)^½ is the sum of the square roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    covariance = float(cov1.trace() + cov2.trace() - 2 * inner)
    return Frechet(float((mean1 - mean2).square().sum()), max(0.0, covariance))


def half_split_floor(vectors: Tensor, splits: int = 5, seed: int = 0) -> Frechet:
    """Mean distance between random halves of one set (n, D): the value to expect of equal distributions."""
    random = torch.Generator().manual_seed(seed)
    distances = []
    for _ in range(splits):
        order = torch.randperm(len(vectors), generator=random)
        half = len(vectors) // 2
        distances.append(frechet(vectors[order[:half]], vectors[order[half : 2 * half]]))
    return Frechet(sum(d.mean for d in distances) / splits, sum(d.covariance for d in distances) / splits)
