"""The Fréchet distance between two sets of vectors, with the floor that their size leaves."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frechet:
    """|μ₁ − μ₂|² + Tr(Σ₁ + Σ₂ − 2(Σ₁Σ₂)^½), in two parts (Dowson and Landau 1982).

    Attributes:
        mean: |μ₁ − μ₂|².
        covariance: the trace.
    """

    mean: float
    covariance: float

    @property
    def total(self) -> float:
        """Their sum."""
        return self.mean + self.covariance


def frechet(first: Tensor, second: Tensor) -> Frechet:
    """Between the normal distributions with the moments of two sets of vectors (n, D) and (m, D); fp64."""
    moments = [(each.double().mean(0), torch.cov(each.double().T)) for each in (first, second)]
    (mean1, cov1), (mean2, cov2) = moments
    # Tr (Σ₁Σ₂)^½ is the sum of the roots of the eigenvalues of Σ₁^½ Σ₂ Σ₁^½, which is symmetric.
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.T
    inner = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    covariance = float(cov1.trace() + cov2.trace() - 2 * inner)
    return Frechet(float((mean1 - mean2).square().sum()), max(0.0, covariance))


def half_split_floor(vectors: Tensor, splits: int = 5, seed: int = 0) -> Frechet:
    """Mean distance between random halves of one set (n, D): what two equal distributions are apart."""
    random = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(splits):
        order = torch.randperm(len(vectors), generator=random)
        half = len(vectors) // 2
        found.append(frechet(vectors[order[:half]], vectors[order[half : 2 * half]]))
    return Frechet(sum(each.mean for each in found) / splits, sum(each.covariance for each in found) / splits)
