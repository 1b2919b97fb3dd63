"""InterFaceGAN boundaries: linear classifiers of codes, with normal and bias (Shen et al. 2020)."""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.core.bounds import PositiveInt, PositiveShare, Seed
from flows.core.extras import optional
from flows.core.numerics import to_double
from flows.core.statistics import check_enough
from flows.errors import UserError
from flows.models.codes import Codes
from flows.semantics.base import Score
from flows.steering.base import Direction
from flows.steering.method import FEWEST, Labelled, known
from flows.steering.survey import Survey
from flows.steering.validation import best_cut, without_figures

__all__ = ["Boundary", "condition"]

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
"""Penalties C of the support vector machines that are compared."""
SOLVER_STEPS = 100
"""Maximum number of steps of the solver; ten are usual."""
CONFIDENT = 1e-4
"""Distance from 0 or 1 within which probabilities of a multi-class attribute are treated as ties."""


@dataclass
class Boundary(Labelled):
    """Hyperplanes between codes with and without an attribute (arXiv 1907.10786, section 3).

    The codes with the most extreme scores are split 70 : 30 into training and validation. A linear support
    vector machine is trained for each penalty in `PENALTIES`, and one with the penalty of the best validation
    accuracy on both parts. If a score has only two values, all codes are equally extreme, and all are used.

    The plane is placed by all codes (`plane_from_parts`). The paper places it by the extreme ones alone;
    midway between these, the score need not be in its middle.

    For multi-class attributes, probabilities near 0 or 1 are treated as ties, and codes are sampled from them
    at random. Otherwise all negatives would come from the easiest class: the surest negatives for bedrooms
    are churches, and a boundary between bedrooms and churches has kitchens on the bedrooms' side.

    Args:
        share: Share of all codes that is used on each side; never beyond the midpoint of the extreme scores.
        most: Maximum number of codes on each side.
        seed: Seed of the order of ties and of the split.
    """

    share: PositiveShare = 0.1
    most: PositiveInt = 2000
    seed: Seed = 0

    method = "boundary"

    def values(self, survey: Survey, name: str) -> tuple[Tensor, Tensor]:
        codes, value = known(survey, name)
        score = survey.score(name)
        if score.probability and sum(each.attribute == score.attribute for each in survey.scores) > 1:
            value = value.clamp(CONFIDENT, 1 - CONFIDENT)
        return codes, value

    def threshold(self, value: Tensor, score: Score) -> float:
        low, high = self.extremes(value)
        if min(len(low), len(high)) < FEWEST:
            raise UserError(
                f"{score.name}: {len(low)} of {len(value)} codes have a low score and {len(high)} a high "
                f"score, expected at least {FEWEST} each; survey more codes (--n), or a larger share"
            )
        return (float(value[low].max()) + float(value[high].min())) / 2

    def normal(
        self, codes: Tensor, value: Tensor, threshold: float, size: int
    ) -> tuple[Tensor, dict[str, float]]:
        low, high = self.extremes(value)
        parts = [(side[: (cut := math.ceil(0.7 * len(side)))], side[cut:]) for side in (low, high)]
        rows = torch.cat([*(first for first, _ in parts), *(second for _, second in parts)])
        labels = torch.isin(rows, high)
        cut = sum(len(first) for first, _ in parts)
        centred = codes - codes.mean(0)
        inputs = centred[rows] / (centred.square().sum() / (len(codes) * size)).sqrt()
        # Few codes for the number of dimensions are separable, and the hinge's solver is fast.
        products = None if len(inputs) > 2 * inputs.shape[1] else inputs @ inputs.T
        best: tuple[float, float] | None = None
        for penalty in PENALTIES:
            normal, offset = separate(inputs[:cut], labels[:cut], penalty, products)
            right = (inputs[cut:] @ normal + offset > 0) == labels[cut:]
            accuracy = float(to_double(right).mean())
            if best is None or accuracy > best[0]:
                best = accuracy, penalty
        assert best is not None
        normal, _ = separate(inputs, labels, best[1], products)
        return normal / normal.norm(), {"validation_accuracy": best[0], "codes": len(labels)}

    def extremes(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the codes with the lowest and the highest scores; of two values, all codes with each."""
        shuffled = torch.randperm(len(value), generator=torch.Generator().manual_seed(self.seed))
        order = shuffled[value[shuffled].argsort(stable=True)]
        first, last = value[order[0]], value[order[-1]]
        midpoint = (float(first) + float(last)) / 2
        if ((value == first) | (value == last)).all():
            low, high = (order[value[order] < midpoint], order[value[order] > midpoint])
            return low[: self.most], high[: self.most]
        count = min(self.most, math.floor(self.share * len(value)))
        low, high = order[:count], order[len(order) - count :]
        return low[value[low] < midpoint], high[value[high] > midpoint]


def separate(inputs: Tensor, labels: Tensor, penalty: float, products: Tensor | None) -> tuple[Tensor, float]:
    """Normal (K,) and offset of a linear support vector machine with penalty C.

    The loss is the hinge, computed from products of codes, or without them the squared hinge. Of codes that
    are not separable, the solver of the squared hinge takes a second where that of the hinge takes minutes.

    Args:
        inputs: (n, K), fp64.
        labels: (n,) bool, both occur.
        penalty: C.
        products: (m, m), fp64, products of the codes, of which the first n are `inputs`; None for the squared
            hinge.
    """
    svm, exceptions = optional("sklearn.svm"), optional("sklearn.exceptions")  # importing takes a second
    if products is None:
        with warnings.catch_warnings():
            # Later steps hardly turn the normal.
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            linear = svm.LinearSVC(C=penalty, dual=False, max_iter=SOLVER_STEPS).fit(
                inputs.numpy(), labels.numpy()
            )
        return torch.from_numpy(linear.coef_[0]), float(linear.intercept_[0])
    n = len(inputs)
    machine = svm.SVC(kernel="precomputed", C=penalty).fit(products[:n, :n].numpy(), labels.numpy())
    chosen = inputs[torch.from_numpy(machine.support_).long()]
    return torch.from_numpy(machine.dual_coef_[0]) @ chosen, float(machine.intercept_[0])


def condition(direction: Direction, others: Sequence[Direction], codes: Codes) -> Direction:
    """Project other directions out of a direction: n' = n − Cᵀ(CCᵀ)⁻¹C n, of unit length.

    The new plane is placed where its sides agree best with those of the old one over the codes.

    Args:
        direction: Direction to change; all its levels move.
        others: One or more directions; moves along the result leave the distances from their planes
            unchanged.
        codes: n codes of the same space, like those that will be moved; their std along the new direction is
            its sigma. The std of samples differs from that of real images.

    Raises:
        UserError: The directions are in different spaces, or nothing is left of the direction.
    """
    for each in others:
        if each.space != direction.space:
            raise UserError(
                f"expected directions of one space, got {direction.name} of {direction.space!r} and "
                f"{each.name} of {each.space!r}"
            )
    vector = direction.vector.double()
    basis, _ = torch.linalg.qr(torch.stack([each.vector.double() for each in others], 1))
    # The second pass removes the rounding error of the first.
    for _ in range(2):
        vector = vector - basis @ (basis.T @ vector)
    left = float(vector.norm())
    if left < 1e-6:
        names = ", ".join(each.name for each in others)
        raise UserError(f"{direction.name}: nothing is left without {names}; condition on fewer directions")
    removed = " and ".join(each.name for each in others)
    rotated = rotate_to(direction, vector / left, codes)
    return replace(
        rotated, name=f"{direction.name} without {removed}", evidence={**rotated.evidence, "kept": left}
    )


def rotate_to(direction: Direction, vector: Tensor, codes: Codes) -> Direction:
    """Replace a direction's vector by a unit vector, float64 (D,), and update bias and sigma from n codes.

    The new plane is placed where its sides agree best with those of the old one. The accuracies of the old
    vector are dropped from the evidence.
    """
    direction.check(codes)
    check_enough("codes for the std along a direction", len(codes), 2)
    values = codes.values.detach().double().cpu()
    along, side = values @ vector, values @ direction.vector.double() + direction.bias > 0
    return replace(
        direction,
        vector=vector.float(),
        bias=-best_cut(along, side),
        bias_interval=None,
        sigma=float(along.std()),
        evidence=without_figures(direction.evidence),
    )
