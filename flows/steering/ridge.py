"""Directions of numbers: ridge regression of a score on the code, and the same without other scores."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from flows.core.numerics import to_double
from flows.core.statistics import check_enough
from flows.errors import UserError
from flows.steering.base import Direction
from flows.steering.boundary import condition
from flows.steering.method import FEWEST, Method, Task, in_their_span, known
from flows.steering.survey import Survey
from flows.steering.validation import PERMUTATIONS, place_plane

__all__ = ["Ridge"]

PENALTIES = tuple(10.0**power for power in range(-4, 5))
"""Penalties that are compared, in units of the mean variance of a coordinate times the number of codes."""


@dataclass
class Ridge(Method):
    """Direction in which a score grows fastest by a linear model of it: code · w + b, |w|² penalised.

    For numbers such as an age, which a boundary would cut in two; scores of other kinds work as well. The
    penalty has the best leave-one-out R², which follows from one decomposition of the codes without a
    training per code (Allen 1974, PRESS). The plane is where the score has its median. The evidence has the
    leave-one-out R², and a p-value: the share of permutations of the scores, the given ones among them, with
    an R² as high; each permutation chooses its own penalty.

    Args:
        conditional: Whether each direction is made orthogonal to those of the other scores (conditional
            manipulation, arXiv 1907.10786, section 3.3): a move along it leaves their linear models as they
            are.
    """

    conditional: bool = False

    needs_scores: ClassVar[bool] = True
    method: ClassVar[str] = "ridge"

    def find(self, task: Task) -> list[Direction]:
        """Find one direction for each score.

        Raises:
            UserError: There is no such score, there are fewer than `FEWEST` codes, or, with `conditional`,
                less than two scores.
        """
        if not task.names:
            raise UserError("--scores: expected names of scores that the directions should change")
        if self.conditional and len(task.names) < 2:
            raise UserError("conditional: expected two scores or more, each without the others")
        found = [self.one(task.survey, name) for name in task.names]
        if not self.conditional:
            return found
        others = [[each for each in found if each is not one] for one in found]
        return [
            replace(condition(one, rest, task.survey.codes), name=one.name)
            for one, rest in zip(found, others, strict=True)
        ]

    def one(self, survey: Survey, name: str) -> Direction:
        """Direction of one score; see `find`."""
        codes, value = known(survey, name)
        check_enough(f"codes with the score {name}", len(codes), FEWEST)
        value = to_double(value)
        if value.std() == 0:
            raise UserError(f"{name}: all {len(value)} codes have the score {float(value[0]):g}")
        codes, basis = in_their_span(codes.double())
        model = LeaveOneOut(codes)
        penalty, r2 = model.best(value)
        normal = model.weights(value, penalty)
        normal = normal / normal.norm()
        random = torch.Generator().manual_seed(0)
        orders = (torch.randperm(len(value), generator=random) for _ in range(PERMUTATIONS))
        as_good = sum(model.best(value[order])[1] >= r2 for order in orders)
        along = codes @ normal
        plane = place_plane(along, value > value.median()) if value.unique().numel() > 2 else None
        plane = plane or place_plane(along, value > value.mean())
        return Direction(
            name=name,
            vector=(normal if basis is None else basis @ normal).float(),
            bias=plane.bias,
            bias_interval=plane.interval,
            space=survey.codes.space,
            sigma=float(along.std()),
            method=self.method,
            fingerprint=survey.fingerprint,
            evidence={
                "r2": r2,
                "p_value": (1 + as_good) / (1 + PERMUTATIONS),
                "per_sigma": float(slope(along, value)),
                "codes": len(codes),
            },
        )


class LeaveOneOut:
    """Ridge regressions on the same codes, with the residual of each code by the others.

    With centred codes X = U S Vᵀ, the residual of code i left out is (y − H y)_i / (1 − H_ii) for
    H = 1/n + U (S²/(S² + λ)) Uᵀ.

    Args:
        codes: (n, K), fp64.
    """

    def __init__(self, codes: Tensor):
        self.u, self.s, self.vt = torch.linalg.svd(codes - codes.mean(0), full_matrices=False)
        scale = float(self.s.square().sum()) / codes.shape[1]
        self.shrinkage = [self.s.square() / (self.s.square() + penalty * scale) for penalty in PENALTIES]
        self.leverage = [self.u.square() @ each + 1 / len(codes) for each in self.shrinkage]

    def best(self, value: Tensor) -> tuple[int, float]:
        """Number of the best penalty for scores (n,), fp64, and its leave-one-out R²."""
        centred = value - value.mean()
        parts = self.u.T @ centred
        # The mean of the others, too, is known without the code that is left out.
        alone = float((centred * len(value) / (len(value) - 1)).square().sum())
        scores = []
        for shrinkage, leverage in zip(self.shrinkage, self.leverage, strict=True):
            left = (centred - self.u @ (shrinkage * parts)) / (1 - leverage).clamp(min=1e-9)
            scores.append(1 - float(left.square().sum()) / alone)
        best = max(range(len(scores)), key=scores.__getitem__)
        return best, scores[best]

    def weights(self, value: Tensor, penalty: int) -> Tensor:
        """Coefficients (K,) of the regression with a penalty, by its number."""
        parts = self.u.T @ (value - value.mean())
        return self.vt.T @ (self.shrinkage[penalty] / self.s.clamp(min=1e-300) * parts)


def slope(along: Tensor, value: Tensor) -> Tensor:
    """Change of a score, in its unit, per std of the projections (n,)."""
    centred = along - along.mean()
    return (centred @ (value - value.mean())) / centred.square().sum() * along.std()
