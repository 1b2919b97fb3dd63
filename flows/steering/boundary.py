"""InterFaceGAN boundaries: linear classifiers of codes, with normal and bias (Shen et al. 2020)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.bounds import PositiveInt, PositiveShare, Seed
from flows.errors import UserError
from flows.models.codes import Codes
from flows.statistics import check_enough
from flows.steering.base import Direction
from flows.steering.method import FEWEST, Labelled, known
from flows.steering.survey import Survey

__all__ = ["Boundary", "condition"]

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
"""Penalties C of the support vector machines that are compared."""
CONFIDENT = 1e-4
"""Distance from 0 or 1 within which probabilities of a multi-class attribute are treated as ties."""


@dataclass
class Boundary(Labelled):
    """Hyperplanes between codes with and without an attribute (arXiv 1907.10786, section 3).

    The codes with the most extreme scores are split 70 : 30 into training and validation. A linear support
    vector machine is trained for each penalty in `PENALTIES`; the one with the best validation accuracy is
    kept, with its bias.

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

    def one(self, survey: Survey, name: str) -> Direction:
        codes, value = known(survey, name)
        score = survey.score(name)
        if score.probability and sum(each.attribute == score.attribute for each in survey.scores) > 1:
            value = value.clamp(CONFIDENT, 1 - CONFIDENT)
        low, high = self.extremes(value, name)
        scale = float((codes - codes.mean(0)).square().mean().sqrt())
        mean = codes.mean(0)
        random = torch.Generator().manual_seed(self.seed)
        train, validation = [], []
        for side in (low, high):
            side = side[torch.randperm(len(side), generator=random)]
            cut = math.ceil(0.7 * len(side))
            train.append(side[:cut])
            validation.append(side[cut:])
        from sklearn.svm import SVC  # here, because the import takes a second

        best: tuple[float, Tensor, float] | None = None
        for penalty in PENALTIES:
            classifier = SVC(kernel="linear", C=penalty)
            inputs = (codes[torch.cat(train)] - mean) / scale
            classifier.fit(inputs.numpy(), [0] * len(train[0]) + [1] * len(train[1]))
            normal = torch.tensor(classifier.coef_[0])
            length = float(normal.norm())
            vector = normal / length
            bias = scale * float(classifier.intercept_[0]) / length - float(mean.double() @ vector)
            accuracy = agreement(codes, vector, bias, *validation)
            if best is None or accuracy > best[0]:
                best = accuracy, vector, bias
        assert best is not None
        accuracy, vector, bias = best
        rest = torch.ones(len(codes), dtype=torch.bool)
        rest[torch.cat(train)] = False
        threshold = (float(value[low].max()) + float(value[high].min())) / 2
        above = codes.double() @ vector + bias > 0
        all_accuracy = ((value > threshold) == above)[rest].double().mean()
        return Direction(
            name=name,
            vector=vector.float(),
            bias=bias,
            space=survey.codes.space,
            sigma=float((codes.double() @ vector).std()),
            method="boundary",
            fingerprint=survey.fingerprint,
            evidence={
                "validation_accuracy": accuracy,
                "all_accuracy": float(all_accuracy),
                "all_balanced_accuracy": balanced(value[rest] > threshold, above[rest]),
                "codes": len(low) + len(high),
            },
        )

    def extremes(self, value: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Indices of the codes with the lowest and the highest scores.

        Raises:
            UserError: There are fewer than `FEWEST` codes on a side.
        """
        shuffled = torch.randperm(len(value), generator=torch.Generator().manual_seed(self.seed))
        order = shuffled[value[shuffled].argsort(stable=True)]
        count = min(self.most, math.floor(self.share * len(value)))
        midpoint = (float(value[order[0]]) + float(value[order[-1]])) / 2
        low = order[:count][value[order[:count]] < midpoint]
        high = order[len(order) - count :]
        high = high[value[high] > midpoint]
        if min(len(low), len(high)) < FEWEST:
            raise UserError(
                f"{name}: {len(low)} of {len(value)} codes have a low score and {len(high)} a high score, "
                f"expected at least {FEWEST} each; survey more codes (--n), or a larger share"
            )
        return low, high


def agreement(codes: Tensor, vector: Tensor, bias: float, low: Tensor, high: Tensor) -> float:
    """Share of the codes `low` and `high` that lie below and above the plane, respectively."""
    above = codes.double() @ vector + bias > 0
    return float(torch.cat([~above[low], above[high]]).double().mean())


def balanced(true: Tensor, found: Tensor) -> float:
    """Mean of the accuracies on positives and on negatives; chance is ½, however rare positives are."""
    parts = [(found == true)[true == side].double().mean() for side in (False, True) if (true == side).any()]
    return float(torch.stack(parts).mean())


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
    return replace(
        rotate_to(direction, vector / left, codes),
        name=f"{direction.name} without {removed}",
        evidence={**direction.evidence, "kept": left},
    )


def rotate_to(direction: Direction, vector: Tensor, codes: Codes) -> Direction:
    """Replace a direction's vector by a unit vector, float64 (D,), and update bias and sigma from n codes.

    The new plane is placed where its sides agree best with those of the old one.
    """
    direction.check(codes)
    check_enough("codes for the std along a direction", len(codes), 2)
    values = codes.values.detach().double().cpu()
    along, side = values @ vector, values @ direction.vector.double() + direction.bias > 0
    return replace(direction, vector=vector.float(), bias=-best_cut(along, side), sigma=float(along.std()))


def best_cut(along: Tensor, above: Tensor) -> float:
    """Threshold of projections (n,) that agrees best with `above`, midway between two projections."""
    order = along.argsort()
    ordered, sides = along[order], above[order].double()
    # correct[i]: number of agreements if exactly the first i values lie below the threshold.
    correct = torch.cat([torch.zeros(1, dtype=torch.double), (1 - sides).cumsum(0)])
    correct = correct + torch.cat([sides.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.double)])
    cut = int(correct.argmax())
    margin = (ordered[-1] - ordered[0]) / len(ordered)  # for a threshold beyond all values
    ends = torch.cat([ordered[:1] - margin, ordered, ordered[-1:] + margin])
    return float((ends[cut] + ends[cut + 1]) / 2)
