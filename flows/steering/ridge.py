"""Directions of numbers: ridge regression of a score on the code, and the same without other scores."""

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import Tensor

from flows.core.numerics import to_double
from flows.core.statistics import check_enough
from flows.errors import UserError
from flows.steering.base import Direction
from flows.steering.boundary import condition
from flows.steering.leave_one_out import LeaveOneOut
from flows.steering.method import FEWEST, Method, Task, direction_in, in_their_span, known
from flows.steering.survey import Survey
from flows.steering.validation import place_plane

__all__ = ["Ridge"]


@dataclass
class Ridge(Method):
    """Direction in which a score grows fastest by a linear model of it: code · w + b, |w|² penalised.

    For numbers such as an age, which a boundary would cut in two; scores of other kinds work as well. The
    penalty has the best leave-one-out R² (`LeaveOneOut`). The plane is where the score has its median. The
    evidence has this R², the change of the score per sigma, and the p-value of permutations of the scores.

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
        along = codes @ normal
        middle = value.median() if value.unique().numel() > 2 else value.mean()
        evidence = {
            "r2": r2,
            "p_value": model.p_value(value),
            "per_sigma": float(slope(along, value)),
            "codes": len(codes),
        }
        plane = place_plane(along, value > middle)
        return direction_in(survey, name, self.method, (codes, basis), normal, plane, evidence)


def slope(along: Tensor, value: Tensor) -> Tensor:
    """Change of a score, in its unit, per std of the projections (n,)."""
    centred = along - along.mean()
    return (centred @ (value - value.mean())) / centred.square().sum() * along.std()
