"""Planes of directions, with intervals, and how well they separate codes that they were not found on."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.numerics import to_double
from flows.steering.leave_one_out import LeaveOneOut

__all__ = ["Plane", "place_plane"]

FOLDS = 5
"""Number of parts of a cross-validation."""
FEW = 500
"""Largest number of codes for which labels are permuted."""
Z95 = 1.959964
"""Half the width of the central 95 % of a standard normal distribution."""
NEWTON_STEPS = 50
"""Maximum number of Newton steps of the logistic regression; ten are usual."""


@dataclass(frozen=True)
class Plane:
    """Plane with a given unit normal.

    Attributes:
        bias: Offset: the signed distance of a code is code · normal + bias.
        interval: 95 % interval of the bias; None if the codes do not determine it.
    """

    bias: float
    interval: tuple[float, float] | None


def place_plane(along: Tensor, above: Tensor) -> Plane:
    """Place a plane by a logistic regression of the labels of all codes on their projections.

    The plane is where both labels are equally likely; its interval follows from the covariance of the two
    coefficients by the delta method. If the projections separate the labels, the plane lies in the middle of
    the gap, and the gap is the interval. If they do not increase with the label (slope below its 95 % error),
    the plane is the threshold of best agreement, without an interval.

    Args:
        along: (n,), projections of the codes on the normal.
        above: (n,) bool, labels; both occur.
    """
    along = to_double(along)
    gap = float(along[~above].max()), float(along[above].min())
    if gap[0] < gap[1]:
        return Plane(-(gap[0] + gap[1]) / 2, (-gap[1], -gap[0]))
    mean, std = along.mean(), along.std().clamp(min=1e-300)
    design = torch.stack([torch.ones_like(along), (along - mean) / std], 1)
    coefficients, covariance = logistic(design, to_double(above))
    offset, slope = coefficients.tolist()
    if not slope > Z95 * float(covariance[1, 1].sqrt()):
        return Plane(-best_cut(along, above), None)
    gradient = torch.tensor([1 / slope, -offset / slope**2], dtype=torch.double)
    error = Z95 * float((gradient @ covariance @ gradient).sqrt()) * float(std)
    bias = float(std) * offset / slope - float(mean)
    return Plane(bias, (bias - error, bias + error))


def logistic(design: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Logistic regression by Newton's method.

    Args:
        design: (n, k), fp64.
        labels: (n,), fp64, 0 or 1.

    Returns:
        Coefficients (k,) and their covariance (k, k).
    """
    coefficients = torch.zeros(design.shape[1], dtype=torch.double)
    for _ in range(NEWTON_STEPS):
        p = torch.sigmoid(design @ coefficients)
        information = design.T @ (design * (p * (1 - p))[:, None])
        information = information + 1e-9 * torch.eye(len(information), dtype=torch.double)
        step = torch.linalg.solve(information, design.T @ (labels - p))
        # Longer steps overshoot where all probabilities are nearly 0 or 1.
        step = step * min(1.0, 5 / float(step.norm().clamp(min=1e-300)))
        coefficients = coefficients + step
        if float(step.abs().max()) < 1e-9:
            break
    return coefficients, torch.linalg.inv(information)


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


# Cross-validation ---------------------------------------------------------------------------------


def folds(above: Tensor) -> Tensor:
    """Number of the part of each code, (n,), with nearly equal shares of both labels in every part."""
    numbers = torch.empty(len(above), dtype=torch.int64)
    for side in (above, ~above):
        numbers[side] = torch.arange(int(side.sum())) % FOLDS
    return numbers


def sides_found(
    codes: Tensor, above: Tensor, fold: Tensor, normal_without: Callable[[int], Tensor]
) -> Tensor:
    """Side of each code, (n,) bool, by a plane that was found without the code's part.

    Args:
        codes: (n, D), fp64.
        above: (n,) bool, labels, by which planes are placed.
        fold: (n,), number of the part of each code.
        normal_without: Function from a number to the unit normal (D,) that is found without that part.
    """
    found = torch.empty_like(above)
    for k in range(FOLDS):
        rest = fold != k
        normal = normal_without(k)
        bias = place_plane(codes[rest] @ normal, above[rest]).bias
        found[~rest] = codes[~rest] @ normal + bias > 0
    return found


def plane_from_parts(
    codes: Tensor, above: Tensor, fold: Tensor, normal: Tensor, normal_without: Callable[[int], Tensor]
) -> Plane:
    """Plane with a given normal, placed by projections of each code on the normal found without its part.

    On the normal that they were found with, codes lie farther apart than new codes, and the interval would be
    too short.

    Args:
        codes: (n, D), fp64.
        above: (n,) bool, labels.
        fold: (n,), number of the part of each code.
        normal: (D,), fp64, unit normal of the plane.
        normal_without: Function from a number to the unit normal (D,) that is found without that part.
    """
    mean = codes.mean(0)
    along = torch.empty(len(codes), dtype=torch.double)
    for k in range(FOLDS):
        along[fold == k] = (codes[fold == k] - mean) @ normal_without(k)
    plane, shift = place_plane(along, above), float(mean @ normal)
    ends = plane.interval
    return Plane(plane.bias - shift, None if ends is None else (ends[0] - shift, ends[1] - shift))


def balanced(true: Tensor, found: Tensor) -> float:
    """Mean of the accuracies on positives and on negatives; chance is ½, however rare positives are."""
    parts = [
        to_double((found == true)[true == side]).mean() for side in (False, True) if (true == side).any()
    ]
    return float(torch.stack(parts).mean())


def quality(codes: Tensor, above: Tensor, found: Tensor) -> dict[str, float]:
    """Figures of a cross-validation: accuracy, share of the majority, balanced accuracy and p-value.

    The p-value says whether shuffled labels would give such a direction as well. For at most `FEW` codes it
    is that of permutations of the labels, by the leave-one-out R² of a ridge regression: this finds more than
    the accuracy of a method, and is the same for all methods. For more codes it is that of the sides found
    being independent of the labels, by a normal approximation.

    Args:
        codes: (n, K), fp64.
        above: (n,) bool, labels.
        found: (n,) bool, sides that are found by cross-validation.
    """
    share = float(to_double(above).mean())
    few = len(above) <= FEW
    return {
        "accuracy": float(to_double(found == above).mean()),
        "majority": max(share, 1 - share),
        "balanced_accuracy": balanced(above, found),
        "p_value": LeaveOneOut(codes).p_value(to_double(above)) if few else chance_of(above, found),
    }


def chance_of(above: Tensor, found: Tensor) -> float:
    """Probability that sides which are independent of the labels agree as well, (n,) bool each.

    The number of agreements on positives is hypergeometric; its normal approximation is taken.
    """
    n, positives, chosen = len(above), int(above.sum()), int(found.sum())
    hits = int((above & found).sum())
    mean = positives * chosen / n
    variance = mean * (n - positives) * (n - chosen) / (n * (n - 1))
    if variance == 0:
        return 1.0
    return float(0.5 * math.erfc((hits - 0.5 - mean) / math.sqrt(2 * variance)))


FIGURES = (
    "accuracy", "majority", "balanced_accuracy", "p_value", "validation_accuracy", "r2", "per_sigma",
)  # fmt: skip
"""Evidence that holds for one vector only, and is lost when a direction is rotated."""


def without_figures(evidence: dict[str, float]) -> dict[str, float]:
    """Evidence that still holds for a rotated direction."""
    return {name: value for name, value in evidence.items() if name not in FIGURES}
