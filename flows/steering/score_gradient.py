"""Mean gradient of a score with respect to the code, as a direction."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.bounds import PositiveInt
from flows.core.numerics import exact_arithmetic, frozen
from flows.core.once import prepared
from flows.errors import Unsupported, UserError
from flows.images import clamp_through
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, column_of
from flows.steering.base import Direction
from flows.steering.method import FEWEST, Method, Task
from flows.steering.validation import FOLDS, Plane, plane_from_parts, quality, sides_found

__all__ = ["ScoreGradient"]

BATCH = 50
"""Number of codes that are decoded at a time."""


@dataclass
class ScoreGradient(Method):
    """Direction of the mean gradient of a score, g = E[∂s(G(z))/∂z], through model and predictor.

    To first order, a direction changes the mean of a score by its product with g, so a direction orthogonal
    to g leaves the mean unchanged (`condition`). The normal of a boundary does not guarantee this, because it
    describes where codes with the attribute lie, not what changes the score. Among unit vectors, g/|g|
    increases the mean score fastest, to first order. The evidence of a direction has |g| (`length`), the norm
    of the mean gradient relative to the mean norm of the gradients (`alike`; 1 if all gradients are
    parallel), the number of codes for which the score is defined (`codes`), and the figures of a
    cross-validation (see `Labelled`).

    Args:
        codes: Number of codes, at most those surveyed.
    """

    needs_scores = True
    needs_predictor = True

    codes: PositiveInt = 1000

    def find(self, task: Task) -> list[Direction]:
        """Find one direction for each name.

        Raises:
            Unsupported: The predictor's scores have no gradient.
            UserError: There is no such score or no predictor, or too few images have the score.
        """
        if not task.names:
            raise UserError("--scores: expected names of scores that the directions should change")
        if task.predictor is None:
            raise UserError("expected a differentiable predictor of the scores")
        columns = [column_of(task.predictor.scores, name) for name in task.names]
        codes = task.codes(min(self.codes, task.n))
        gradients = mean_gradients(task.model, task.predictor, codes, columns, FOLDS)
        return [self.one(task, i, gradients, codes) for i in range(len(columns))]

    def one(self, task: Task, i: int, found: "Gradients", codes: Codes) -> Direction:
        """Direction of the i-th name."""
        assert task.predictor is not None
        name, defined = task.names[i], ~found.values[:, i].isnan()
        score = task.predictor.scores[column_of(task.predictor.scores, name)]
        if int(defined.sum()) < FEWEST:
            raise UserError(
                f"{name}: the score is defined for {int(defined.sum())} of {len(codes)} images, expected at "
                f"least {FEWEST}; take more codes"
            )
        total = found.sums[i]
        length = float(total.norm())
        if length == 0:
            raise UserError(f"{name}: the predictor has no gradient at these codes")
        vector = total / length
        values = codes.values.double().cpu()
        above = found.values[:, i] > (score.low + score.high) / 2
        known, labels = values[defined], above[defined]
        plane, figures = Plane(-float(values.mean(0) @ vector), None), dict[str, float]()
        if labels.any() and not labels.all():
            fold = (torch.arange(len(codes)) % FOLDS)[defined]
            rest = [total - part for part in found.parts[:, i]]
            plane, figures = validated(known, labels, fold, vector, [each / each.norm() for each in rest])
        return Direction(
            name=name,
            vector=vector.float(),
            bias=plane.bias,
            bias_interval=plane.interval,
            space=task.space,
            sigma=float((values @ vector).std()),
            method="score-gradient",
            fingerprint=task.model.fingerprint(),
            evidence={
                **figures,
                "length": length / int(defined.sum()),
                "alike": length / float(found.lengths[i]),
                "codes": int(defined.sum()),
            },
        )


def validated(
    known: Tensor, labels: Tensor, fold: Tensor, vector: Tensor, normals: list[Tensor]
) -> tuple[Plane, dict[str, float]]:
    """Plane with a normal vector, and its quality by cross-validation.

    Args:
        known: (n, D), codes for which the score is defined.
        labels: bool (n,), whether the score is above the middle of its range.
        fold: (n,), fold of each code.
        vector: (D,), normal vector.
        normals: Normal vectors that were found without each fold.
    """
    plane = plane_from_parts(known, labels, fold, vector, normals.__getitem__)
    return plane, quality(known, labels, sides_found(known, labels, fold, normals.__getitem__))


@dataclass(frozen=True, kw_only=True)
class Gradients:
    """Scores of n images, and their gradients with respect to the codes.

    Attributes:
        values: (n, scores), NaN where a score is undefined.
        parts: float64 (parts, scores, D), sums of the gradients over the images of each part for which the
            score is defined; image i belongs to part i mod the number of parts.
        lengths: float64 (scores,), sums of the lengths of these gradients.
    """

    values: Tensor
    parts: Tensor
    lengths: Tensor

    @property
    def sums(self) -> Tensor:
        """Sums over all images, (scores, D)."""
        return self.parts.sum(0)


def mean_gradients(
    model: LatentModel, predictor: Predictor, codes: Codes, columns: Sequence[int], parts: int = 1
) -> Gradients:
    """Sum gradients of a predictor's scores with respect to the codes; results on the host.

    Args:
        model: Model of the codes.
        predictor: Differentiable predictor.
        codes: n codes.
        columns: Columns of the scores.
        parts: Number of parts of the images that are summed separately.

    Raises:
        Unsupported: The predictor's scores have no gradient.
    """
    values = []
    sums = torch.zeros(parts, len(columns), codes.values.shape[1], dtype=torch.double)
    begun = 0
    lengths = torch.zeros(len(columns), dtype=torch.double)
    with frozen(model), prepared(), exact_arithmetic(model.device):
        for part in codes.to(model).split(BATCH):
            code = part.values.detach().clone().requires_grad_()
            images = model.decode_codes(part.with_values(code)).float()
            scores = predictor.predict(clamp_through(images))[:, list(columns)]
            if not scores.requires_grad:
                raise Unsupported("the output of the predictor has no gradient with respect to the images")
            for i, column in enumerate(scores.unbind(1)):
                total = column.where(~column.isnan(), torch.zeros_like(column)).sum()
                (gradient,) = torch.autograd.grad(total, [code], retain_graph=i + 1 < len(columns))
                part_of = (begun + torch.arange(len(part))) % parts
                sums[:, i].index_add_(0, part_of, gradient.double().cpu())
                lengths[i] += gradient.double().norm(dim=1).sum().cpu()
            values.append(scores.detach().float().cpu())
            begun += len(part)
    return Gradients(values=torch.cat(values), parts=sums, lengths=lengths)
