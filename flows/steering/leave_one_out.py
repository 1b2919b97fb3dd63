"""Ridge regressions of scores on codes, with the residual of each code by the others, and their null."""

import torch
from torch import Tensor

PENALTIES = tuple(10.0**power for power in range(-4, 5))
"""Penalties that are compared, in units of the mean variance of a coordinate times the number of codes."""
PERMUTATIONS = 999
"""Number of permutations of the scores; the smallest p-value is 0.001."""


class LeaveOneOut:
    """Ridge regressions on the same codes, with the residual of each code by the others.

    With centred codes X = U S Vᵀ, the residual of code i left out is (y − H y)_i / (1 − H_ii) for
    H = 1/n + U (S²/(S² + λ)) Uᵀ (Allen 1974, PRESS). No training per code is needed.

    Args:
        codes: (n, K), fp64.
    """

    def __init__(self, codes: Tensor):
        self.u, self.s, self.vt = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
        scale = float(self.s.square().sum()) / codes.shape[1]
        self.shrinkage = [self.s.square() / (self.s.square() + penalty * scale) for penalty in PENALTIES]
        self.leverage = [self.u.square() @ each + 1 / len(codes) for each in self.shrinkage]

    def r2(self, values: Tensor) -> Tensor:
        """Leave-one-out R² for each penalty, (penalties, m), of m scores (n, m), fp64."""
        n = len(values)
        centred = values - values.mean(0)
        parts = self.u.T @ centred
        # The mean of the others, too, is known without the code that is left out.
        alone = (centred * n / (n - 1)).square().sum(0)
        rows = []
        for shrinkage, leverage in zip(self.shrinkage, self.leverage, strict=True):
            left = centred - self.u @ (shrinkage[:, None] * parts)
            rows.append(1 - (left / (1 - leverage).clamp(min=1e-9)[:, None]).square().sum(0) / alone)
        return torch.stack(rows)

    def best(self, value: Tensor) -> tuple[int, float]:
        """Number of the best penalty for scores (n,), fp64, and its leave-one-out R²."""
        scores = self.r2(value[:, None])[:, 0]
        return int(scores.argmax()), float(scores.max())

    def p_value(self, value: Tensor) -> float:
        """Share of permutations of scores (n,), the given one among them, with a best R² as high.

        Each permutation chooses its own penalty.
        """
        random = torch.Generator().manual_seed(0)
        orders = [torch.randperm(len(value), generator=random) for _ in range(PERMUTATIONS)]
        shuffled = torch.stack([value[order] for order in orders], 1)
        as_good = int((self.r2(shuffled).max(0).values >= self.best(value)[1]).sum())
        return (1 + as_good) / (1 + PERMUTATIONS)

    def weights(self, value: Tensor, penalty: int) -> Tensor:
        """Coefficients (K,) of the regression of scores (n,) with a penalty, by its number."""
        parts = self.u.T @ (value - value.mean())
        return self.vt.T @ (self.shrinkage[penalty] / self.s.clamp(min=1e-300) * parts)
