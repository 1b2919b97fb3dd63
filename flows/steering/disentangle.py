"""A direction bent until it changes, in the mean, nothing but what it should."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from tqdm import tqdm

from flows.models.base import LatentModel
from flows.models.codes import Codes, concatenate
from flows.semantics.base import Predictor, column_of
from flows.steering.base import Direction, shift
from flows.steering.boundary import rotate_to
from flows.steering.evaluate import Rescoring, own_score, rescore
from flows.steering.score_gradient import mean_gradients
from flows.steering.survey import score_codes


@dataclass(frozen=True)
class Disentangled:
    """A direction, and how it was found.

    Attributes:
        direction: that leaks least, of the same name.
        leakages: largest leakage at the start and after each round, on the codes it was found on; infinite
            where too little is left of its own effect.
        effects: of the direction's own score, likewise, in its spread.
        left_alone: names of the scores that were asked to stay.
    """

    direction: Direction
    leakages: list[float]
    effects: list[float]
    left_alone: list[str]

    @property
    def best(self) -> int:
        """The round that the direction is of; 0 where it is the given one."""
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
    """Take from a direction what changes other scores when codes move by ± α along it.

    `condition` projects once, at the codes where they are. Here each round moves the codes, scores them, and
    solves L + Jδ = 0 for the shortest δ (Gauss and Newton's step), where L are the mean changes of all scores
    that leak and J their gradients by the direction, at both ends of the move. The change of the direction's
    own score is asked to stay.

    Args:
        model: whose codes they are.
        predictor: differentiable.
        direction: named after one of its scores; all its levels move.
        codes: n codes, none that it will be evaluated on.
        alpha: sigmas moved, as it will be.
        enough: leakage, relative to the own effect, that need not be taken away.
        rounds: at most.
        fewest: share of its own effect at the start that a direction must keep.

    Returns:
        the best of all rounds, the given direction among them.
    """
    own = column_of(predictor.scores, own_score(direction.name))
    # A score's change is told of the images that show the direction's own: the lamp's, of those with a lamp.
    defined = ~score_codes(model, predictor, codes)[:, own].isnan()
    codes = codes[defined]
    current, asked = direction, [own]
    best, leakages, effects = direction, list[float](), list[float]()
    for turn in tqdm(range(rounds + 1), desc=direction.name, leave=False):
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
        asked += [i for i, leak in leaks.items() if leak > enough and i not in asked]
        moved = concatenate([shift(codes, current, sign * alpha) for sign in (-1, 1)])
        found = mean_gradients(model, predictor, moved, asked)
        spread = matrix.spread[asked].double()
        # By the unit of length: half the change from −α to +α is α·σ·(J₋ + J₊)/2 for each unit of the vector.
        slopes = alpha * current.sigma * found.sums / len(moved) / spread[:, None]
        change = matrix.signed[0, asked].double()
        change[0] = 0  # its own stays
        current = corrected(current, slopes, change, codes)
    names = [predictor.scores[i].name for i in asked[1:]]
    evidence = {**direction.evidence, "leakage": min(leakages)}
    method = direction.method if best is direction else f"{direction.method}, disentangled"
    return Disentangled(replace(best, method=method, evidence=evidence), leakages, effects, names)


def leaking(matrix: Rescoring, name: str) -> dict[int, float]:
    """Columns of other attributes that the predictor tells well enough, to their leakage."""
    return {i: matrix.leakage(name, matrix.scores[i].name) for i in matrix.others(name)}


def corrected(direction: Direction, slopes: Tensor, change: Tensor, codes: Codes) -> Direction:
    """The direction with the shortest addition that takes changes (scores,) back, by slopes (scores, D)."""
    gram = slopes @ slopes.T
    ridge = 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    addition = -slopes.T @ torch.linalg.solve(gram + ridge, change)
    vector = direction.vector.double() + addition
    return rotate_to(direction, vector / vector.norm(), codes)
