"""InterFaceGAN's boundaries: a linear classifier of codes, its normal, and its bias (Shen et al. 2020)."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.errors import UserError
from flows.models.codes import Codes
from flows.steering.base import Direction
from flows.steering.method import FEWEST, Labelled, known
from flows.steering.survey import Survey

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
CONFIDENT = 1e-4
"""Probabilities of a class of several that are nearer than this to 0 or 1 are alike."""


@dataclass
class Boundary(Labelled):
    """Planes between the codes of what has an attribute and of what has not (arXiv 1907.10786, section 3).

    The codes with the most extreme scores are cut 70 : 30 into training and validation; of linear support
    vector machines with the penalties of `PENALTIES` the best on validation is kept, with its bias.
    Of codes that show one class of several with the same confidence some are drawn: the surest of all to be
    no bedroom are churches, and the plane that parts bedrooms from churches has kitchens on the bedrooms'
    side.

    Args:
        share: of all codes, on each side. Never across the middle between the extreme scores.
        most: codes on each side at most.
        seed: of the draw and of the cut.
    """

    share: float = 0.1
    most: int = 2000
    seed: int = 0

    def one(self, survey: Survey, name: str) -> Direction:
        seen, value = known(survey, name)
        score = survey.score(name)
        if score.probability and sum(each.attribute == score.attribute for each in survey.scores) > 1:
            value = value.clamp(CONFIDENT, 1 - CONFIDENT)
        low, high = self.extremes(value, name)
        scale = float((seen - seen.mean(0)).square().mean().sqrt())
        middle = seen.mean(0)
        random = torch.Generator().manual_seed(self.seed)
        train, check = [], []
        for side in (low, high):
            side = side[torch.randperm(len(side), generator=random)]
            cut = math.ceil(0.7 * len(side))
            train.append(side[:cut])
            check.append(side[cut:])
        from sklearn.svm import SVC  # takes a second

        best: tuple[float, Tensor, float] | None = None
        for penalty in PENALTIES:
            machine = SVC(kernel="linear", C=penalty)
            codes = (seen[torch.cat(train)] - middle) / scale
            machine.fit(codes.numpy(), [0] * len(train[0]) + [1] * len(train[1]))
            normal = torch.tensor(machine.coef_[0])
            length = float(normal.norm())
            vector = normal / length
            bias = scale * float(machine.intercept_[0]) / length - float(middle.double() @ vector)
            right = agreement(seen, vector, bias, *check)
            if best is None or right > best[0]:
                best = right, vector, bias
        assert best is not None
        right, vector, bias = best
        rest = torch.ones(len(seen), dtype=torch.bool)
        rest[torch.cat(train)] = False
        threshold = (float(value[low].max()) + float(value[high].min())) / 2
        above = seen.double() @ vector + bias > 0
        everything = ((value > threshold) == above)[rest].double().mean()
        return Direction(
            name, vector.float(), bias, survey.codes.space, float((seen.double() @ vector).std()), "boundary",
            fingerprint=survey.fingerprint,
            evidence={
                "validation_accuracy": right, "all_accuracy": float(everything),
                "all_balanced_accuracy": balanced(value[rest] > threshold, above[rest]),
                "codes": len(low) + len(high),
            },
        )  # fmt: skip

    def extremes(self, value: Tensor, name: str) -> tuple[Tensor, Tensor]:
        """Indices of the codes with the lowest and the highest scores."""
        drawn = torch.randperm(len(value), generator=torch.Generator().manual_seed(self.seed))
        order = drawn[value[drawn].argsort(stable=True)]
        wanted = min(self.most, math.floor(self.share * len(value)))
        middle = (float(value[order[0]]) + float(value[order[-1]])) / 2
        low = order[:wanted][value[order[:wanted]] < middle]
        high = order[len(order) - wanted :]
        high = high[value[high] > middle]
        if min(len(low), len(high)) < FEWEST:
            raise UserError(
                f"{name}: of {len(value)} codes in which it can be seen {len(low)} are low and {len(high)} "
                f"high enough, expected at least {FEWEST} each; survey more codes or take a larger share"
            )
        return low, high


def agreement(codes: Tensor, vector: Tensor, bias: float, low: Tensor, high: Tensor) -> float:
    """Share of codes on their side of the plane."""
    above = codes.double() @ vector + bias > 0
    return float(torch.cat([~above[low], above[high]]).double().mean())


def balanced(true: Tensor, found: Tensor) -> float:
    """Mean of the accuracies on what is so and on what is not: ½ is chance, however rare it is."""
    parts = [(found == true)[true == side].double().mean() for side in (False, True) if (true == side).any()]
    return float(torch.stack(parts).mean())


def condition(direction: Direction, others: Sequence[Direction], codes: Codes) -> Direction:
    """The part of a direction that leaves others alone: n' = n − Cᵀ(CCᵀ)⁻¹C n, of length 1.

    Its plane is put where it agrees best with the sides of the first one's over the codes.

    Args:
        direction: to be changed; all its levels move.
        others: one or more, whose distances shall not change.
        codes: n codes of the same space, like those that will be moved: their std along the new direction is
            its sigma. The std of samples differs from that of real images.

    Raises:
        ValueError: another space, or nothing is left of it.
    """
    for each in others:
        if each.space != direction.space:
            raise UserError(
                f"{each.name} is of space {each.space!r}, {direction.name} of {direction.space!r}"
            )
    vector = direction.vector.double()
    basis, _ = torch.linalg.qr(torch.stack([each.vector.double() for each in others], 1))
    # Twice: what rounding left of the others in the first pass is removed by the second.
    for _ in range(2):
        vector = vector - basis @ (basis.T @ vector)
    left = float(vector.norm())
    if left < 1e-6:
        names = ", ".join(each.name for each in others)
        raise UserError(f"{direction.name}: nothing of it is left without {names}")
    given = " and ".join(each.name for each in others)
    return replace(
        rotate_to(direction, vector / left, codes), name=f"{direction.name} without {given}",
        evidence={**direction.evidence, "kept": left},
    )  # fmt: skip


def rotate_to(direction: Direction, vector: Tensor, codes: Codes) -> Direction:
    """A direction along another unit vector, float64 (D,), with what depends on it anew, over codes (n, D).

    Its plane is put where it agrees best with the sides of the first one's.
    """
    values = codes.values.detach().double().cpu()
    along, side = values @ vector, values @ direction.vector.double() + direction.bias > 0
    return replace(direction, vector=vector.float(), bias=-best_cut(along, side), sigma=float(along.std()))


def best_cut(along: Tensor, above: Tensor) -> float:
    """The threshold of projections (n,) that agrees with the most of `above`; the middle of the best two."""
    order = along.argsort()
    ordered, sides = along[order], above[order].double()
    # Everything before the cut counts as below.
    right = torch.cat([torch.zeros(1, dtype=torch.double), (1 - sides).cumsum(0)])
    right = right + torch.cat([sides.flip(0).cumsum(0).flip(0), torch.zeros(1, dtype=torch.double)])
    cut = int(right.argmax())
    margin = (ordered[-1] - ordered[0]) / len(ordered)  # where all are on one side
    ends = torch.cat([ordered[:1] - margin, ordered, ordered[-1:] + margin])
    return float((ends[cut] + ends[cut + 1]) / 2)
