"""The mean gradient of a score by the code: what changes it at first, whatever else lies beside it."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.errors import Unsupported, UserError
from flows.images import clamp_through
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.numerics import exact_arithmetic, frozen
from flows.once import prepared
from flows.semantics.base import Predictor, column_of
from flows.steering.base import Direction
from flows.steering.boundary import best_cut
from flows.steering.method import FEWEST, Method, Task

BATCH = 50


@dataclass
class ScoreGradient(Method):
    """g = E[∂s(G(z))/∂z], through model and predictor.

    To first order a direction changes the mean of a score by its product with g: what is orthogonal to g
    leaves the score alone in the mean (`condition`). The normal of a boundary does not promise that, for it
    tells where codes with the score lie, not what draws it. As a direction of its own it is the steepest.

    Args:
        codes: so many of those surveyed.
    """

    codes: int = 1000

    def find(self, task: Task) -> list[Direction]:
        """One direction for each name.

        Raises:
            ValueError: no such score, no predictor, one without gradients, or hardly an image with the score.
        """
        if not task.names:
            raise UserError("--scores: name those that the directions should change")
        if task.predictor is None:
            raise UserError("expected a predictor, through which gradients go")
        columns = [column_of(task.predictor.scores, name) for name in task.names]
        codes = task.codes(min(self.codes, task.n))
        found = mean_gradients(task.model, task.predictor, codes, columns)
        return [self.one(task, i, found, codes) for i in range(len(columns))]

    def one(self, task: Task, i: int, found: "Gradients", codes: Codes) -> Direction:
        """The direction of the i-th name."""
        assert task.predictor is not None
        name, told = task.names[i], ~found.values[:, i].isnan()
        score = task.predictor.scores[column_of(task.predictor.scores, name)]
        if int(told.sum()) < FEWEST:
            raise UserError(f"{name}: the predictor tells it of {int(told.sum())} of {len(codes)} images")
        length = float(found.sums[i].norm())
        if length == 0:
            raise UserError(f"{name}: the predictor has no gradient at these codes")
        vector = found.sums[i] / length
        along = codes.values.double().cpu() @ vector
        above = found.values[:, i] > (score.low + score.high) / 2
        return Direction(
            name, vector.float(), -best_cut(along[told], above[told]), task.space, float(along.std()),
            "score-gradient", fingerprint=task.model.fingerprint(),
            evidence={
                "length": length / int(told.sum()), "alike": length / float(found.lengths[i]),
                "codes": int(told.sum()),
            },
        )  # fmt: skip


@dataclass(frozen=True)
class Gradients:
    """Scores of images and their gradients by the codes, over n codes.

    Attributes:
        values: (n, scores), not a number where a score says nothing.
        sums: float64 (scores, D), of the gradients of those of which it says something.
        lengths: float64 (scores,), sum of their lengths.
    """

    values: Tensor
    sums: Tensor
    lengths: Tensor


def mean_gradients(
    model: LatentModel, predictor: Predictor, codes: Codes, columns: Sequence[int]
) -> Gradients:
    """Gradients of some of a predictor's scores by the codes, added up; on the host.

    Args:
        model: whose codes they are.
        predictor: differentiable.
        codes: n codes.
        columns: numbers of the scores.

    Raises:
        ValueError: what the predictor says has no gradient.
    """
    values = []
    sums = torch.zeros(len(columns), codes.values.shape[1], dtype=torch.double)
    lengths = torch.zeros(len(columns), dtype=torch.double)
    with frozen(model), prepared(), exact_arithmetic(model.device):
        for part in codes.to(model).split(BATCH):
            code = part.values.detach().clone().requires_grad_()
            drawn = model.decode_codes(part.with_values(code)).float()
            scores = predictor.predict(clamp_through(drawn))[:, list(columns)]
            if not scores.requires_grad:
                raise Unsupported("what the predictor says has no gradient by its images")
            for i, column in enumerate(scores.unbind(1)):
                told = column.where(~column.isnan(), torch.zeros_like(column)).sum()
                (slope,) = torch.autograd.grad(told, [code], retain_graph=i + 1 < len(columns))
                sums[i] += slope.double().sum(0).cpu()
                lengths[i] += slope.double().norm(dim=1).sum().cpu()
            values.append(scores.detach().float().cpu())
    return Gradients(torch.cat(values), sums, lengths)
