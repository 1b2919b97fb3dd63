"""Directions corrected iteratively until they change, on average, only their own score."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.display.progress import progress
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate
from flows.semantics.base import Predictor, column_of
from flows.steering.base import Direction, shift
from flows.steering.boundary import rotate_to
from flows.steering.evaluate import Rescoring, own_score, rescore
from flows.steering.score_gradient import mean_gradients
from flows.steering.survey import score_codes

__all__ = ["Disentangled"]


@dataclass(frozen=True)
class Disentangled:
    """Direction with the least leakage, and the history of the search.

    Attributes:
        direction: Direction with the least leakage, under the name of the given one.
        leakages: Largest leakage at the start and after each round, on the codes of the search; infinite if
            too little is left of the direction's own effect.
        effects: Change of the direction's own score at the start and after each round, in std of the score.
        projected_out: Names of the scores whose change was removed.
    """

    direction: Direction
    leakages: list[float]
    effects: list[float]
    projected_out: list[str]

    @property
    def best(self) -> int:
        """Round that the direction belongs to; 0 for the given direction."""
        return self.leakages.index(min(self.leakages))


def disentangle(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    alpha: float = 2.0,
    enough: float = 0.1,
    rounds: int = 6,
    fewest: float = 0.6,
) -> Disentangled:
    """Remove the changes of other scores that occur when codes move by ±α along a direction.

    `condition` projects once, with gradients at the unmoved codes. Here, each round moves the codes, scores
    them, and solves L + Jδ = 0 for the shortest δ (a Gauss–Newton step). L are the mean changes of all scores
    that leak, and J are their gradients with respect to the direction, at both ends of the move. The change
    of the direction's own score is constrained to stay the same.

    Args:
        model: Model of the codes.
        predictor: Differentiable predictor.
        direction: Direction that is named after one of the predictor's scores; all its levels move.
        codes: n codes, other than those of the evaluation.
        alpha: Number of sigmas moved, as in later use.
        enough: Leakage, relative to the direction's own effect, that is accepted.
        rounds: Maximum number of rounds.
        fewest: Minimum share of its initial effect that the direction keeps.

    Returns:
        Best of all rounds, including the given direction.
    """
    own = column_of(predictor.scores, own_score(direction.name))
    # Changes are averaged over images in which the own score is defined: a lamp's hue, over those with one.
    defined = ~score_codes(model, predictor, codes)[:, own].isnan()
    if not defined.any():
        raise UserError(
            f"{direction.name}: the score is undefined in all {len(codes)} images; take more codes"
        )
    codes = codes[defined]
    current, constrained = direction, [own]
    best, leakages, effects = direction, list[float](), list[float]()
    for turn in progress(range(rounds + 1), direction.name):
        matrix = rescore(model, predictor, [current], codes, alpha, resamples=2)
        effect, leaks = matrix.own(current.name), leaking(matrix, current.name)
        keeps = not effects or effect >= fewest * effects[0]
        worst = max(leaks.values(), default=0.0)
        if keeps and (not leakages or worst < min(leakages)):
            best = current
        leakages.append(worst if keeps else float("inf"))
        effects.append(effect)
        if worst <= enough or turn == rounds:
            break
        constrained += [i for i, leak in leaks.items() if leak > enough and i not in constrained]
        slopes = slopes_of(model, predictor, current, codes, alpha, constrained, matrix.std)
        change = matrix.signed[0, constrained].double()
        change[0] = 0  # the direction's own score keeps its change
        current = corrected(current, slopes, change, codes)
    names = [predictor.scores[i].name for i in constrained[1:]]
    evidence = {**best.evidence, "leakage": min(leakages)}
    method = direction.method if best is direction else f"{direction.method}, disentangled"
    return Disentangled(replace(best, method=method, evidence=evidence), leakages, effects, names)


def leaking(matrix: Rescoring, name: str) -> dict[int, float]:
    """Leakage by column, for the scores of other attributes with a quality of at least `MIN_QUALITY`."""
    return {i: matrix.leakage(name, matrix.scores[i].name) for i in matrix.others(name)}


def slopes_of(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    alpha: float,
    columns: list[int],
    std: Tensor,
) -> Tensor:
    """Slopes (len(columns), D) of the changes of scores with respect to a direction's vector, in std."""
    moved = concatenate([shift(codes, direction, sign * alpha) for sign in (-1, 1)])
    gradients = mean_gradients(model, predictor, moved, columns)
    # Half the change from −α to +α is, per unit of the vector, α·σ·(J₋ + J₊)/2.
    return alpha * direction.sigma * gradients.sums / len(moved) / std[columns].double()[:, None]


def corrected(direction: Direction, slopes: Tensor, change: Tensor, codes: Codes) -> Direction:
    """Add the shortest vector that cancels changes (scores,), given their slopes (scores, D)."""
    gram = slopes @ slopes.T
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    addition = -slopes.T @ torch.linalg.solve(gram + ridge, change)
    vector = direction.vector.double() + addition
    return rotate_to(direction, vector / vector.norm(), codes)
