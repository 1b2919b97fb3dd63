"""Effects of moves along directions: on the score that a direction is named after, and on all others."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.statistics import FEWEST, check_enough, interval, std_of
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, Score, column_of
from flows.steering.base import Direction, place, shift
from flows.steering.survey import score_codes

__all__ = ["Rescoring", "rescore", "response"]

RESPONSE_CODES = 100
"""Number of codes that a response is averaged over."""
SAME = 1e-3
"""Std of a score up to which it counts as the same in all images."""
NOTHING = 0.01
"""Change, in std of a score, below which the score counts as unchanged."""
MIN_QUALITY = 0.5
"""Minimum predictor quality (accuracy or R²) for a score to count towards leakage."""


@dataclass(frozen=True, kw_only=True)
class Rescoring:
    """Changes of scores by moves of ±α, with one row per direction and one column per score.

    A change is half of the difference between +α and −α, as one side may be saturated: a lamp that is on can
    only be switched off.

    Attributes:
        directions: Names of the directions.
        scores: Scores of the predictor.
        signed: (directions, scores), mean change of each score, in std of the score, over the images in which
            the direction's own score is defined at −α and +α. Another score that is undefined in an image
            counts as unchanged there, for example a tower's hue in a room. NaN for a score that does not vary
            over the unmoved images, and for a direction whose own score is defined in too few.
        clipped: (directions, scores), mean of the positive changes, max(0, ·): HiGAN's Δ.
        low, high: (directions, scores), 95 % bootstrap interval of `signed`.
        std: (scores,), standard deviation over the unmoved images; NaN for a score that does not vary.
        alpha: Number of sigmas moved.
        kept: Share of the other attributes' probabilities that stay on the same side of ½, for each
            direction; the smaller one of −α and +α.
    """

    directions: list[str]
    scores: tuple[Score, ...]
    signed: Tensor
    clipped: Tensor
    low: Tensor
    high: Tensor
    std: Tensor
    alpha: float
    kept: list[float]

    def column(self, name: str) -> int:
        """Column of the score with this name."""
        return column_of(self.scores, name)

    def own(self, direction: str) -> float:
        """Change of the score that a direction is named after."""
        return float(self.signed[self.directions.index(direction), self.column(own_score(direction))])

    def leakage(self, direction: str, score: str) -> float:
        """|change of another score| / |change of own score|; infinite if the latter is below `NOTHING`.

        NaN if one of the changes is unknown.
        """
        other = float(self.signed[self.directions.index(direction), self.column(score)])
        own = self.own(direction)
        if math.isnan(own) or math.isnan(other):
            return math.nan
        return abs(other / own) if abs(own) >= NOTHING else math.inf

    def others(self, direction: str) -> list[int]:
        """Columns of the scores of other attributes with a quality of at least `MIN_QUALITY`."""
        own = self.scores[self.column(own_score(direction))]
        return [
            i
            for i, score in enumerate(self.scores)
            if score.attribute != own.attribute and score.quality >= MIN_QUALITY
        ]

    def worst(self, direction: str) -> Score | None:
        """Score in `others` that changes most; None if no change is known."""
        row = self.signed[self.directions.index(direction)].abs()
        others = [i for i in self.others(direction) if not row[i].isnan()]
        return self.scores[max(others, key=lambda i: float(row[i]))] if others else None

    def worst_leakage(self, direction: str) -> float:
        """Leakage into the score `worst`; NaN if there is none."""
        worst = self.worst(direction)
        return float("nan") if worst is None else self.leakage(direction, worst.name)


def own_score(direction: str) -> str:
    """Name of the score that a direction is named after: `daylight` of `daylight without lamp_on`."""
    return direction.split(" without ")[0]


def check_own_scores(directions: Sequence[Direction], predictor: Predictor) -> None:
    """Raise UserError if a direction is not named after one of the predictor's scores."""
    known = [score.name for score in predictor.scores]
    for each in directions:
        if own_score(each.name) not in known:
            raise UserError(
                f"direction {each.name!r} is not named after a score of the predictor; expected one of "
                f"{', '.join(known)}; choose directions with --names"
            )


@torch.no_grad()
def rescore(
    model: LatentModel,
    predictor: Predictor,
    directions: Sequence[Direction],
    codes: Codes,
    alpha: float = 2.0,
    resamples: int = 1000,
    before: Tensor | None = None,
) -> Rescoring:
    """Move codes by ±`alpha` sigmas along each direction and measure how the predictor's scores change.

    Args:
        model: Model of the codes.
        predictor: Predictor of the scores.
        directions: Directions of one space.
        codes: n codes of that space: new samples or real images, other than those that directions were found
            on.
        alpha: Number of sigmas.
        resamples: Number of bootstrap resamples of the images.
        before: (n, number of scores), scores of the unmoved codes; None computes them.

    Returns:
        Matrix of changes (HiGAN, Yang et al. 2021), with signs and intervals.

    Raises:
        UserError: There are no directions, one is not named after a score of the predictor, or there are
            fewer than ten codes.
    """
    if not directions:
        raise UserError("directions: expected at least one, got none")
    if before is None:
        before = score_codes(model, predictor, codes)
    check_enough("codes for an effect", len(codes))
    std = std_of(before, SAME)
    scores, changes, kept = predictor.scores, [], []
    for each in directions:
        own = own_score(each.name)
        low, high = (score_codes(model, predictor, shift(codes, each, amount)) for amount in (-alpha, alpha))
        changes.append(visible_changes((high - low) / 2, column_of(scores, own)) / std)
        kept.append(min(kept_share(before, after, scores, own) for after in (low, high)))
    lows, highs = zip(*(bootstrap(change, resamples) for change in changes), strict=True)
    return Rescoring(
        directions=[each.name for each in directions],
        scores=scores,
        signed=torch.stack([change.double().mean(0).to(change) for change in changes]),
        clipped=torch.stack([change.clamp(min=0).mean(0) for change in changes]),
        low=torch.stack(lows),
        high=torch.stack(highs),
        std=std,
        alpha=alpha,
        kept=kept,
    )


def visible_changes(change: Tensor, own: int) -> Tensor:
    """Rows of changes (images, scores) in which column `own` is defined, with 0 for other undefined scores.

    One row of NaN if there are too few for an effect.
    """
    visible = change[~change[:, own].isnan()].nan_to_num()
    return visible if len(visible) >= FEWEST else torch.full((1, change.shape[1]), torch.nan)


def kept_share(before: Tensor, after: Tensor, scores: Sequence[Score], own: str) -> float:
    """Share of other attributes' probabilities that stay on their side of ½, from scores (n, scores)."""
    attribute = next(score.attribute for score in scores if score.name == own)
    columns = [i for i, each in enumerate(scores) if each.probability and each.attribute != attribute]
    if not columns:
        return float("nan")
    first, second = before[:, columns], after[:, columns]
    seen = ~(first.isnan() | second.isnan())
    return float(((first > 0.5) == (second > 0.5))[seen].double().mean())


def bootstrap(change: Tensor, resamples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """95 % interval of the mean over images of changes (images, scores): two tensors (scores,)."""
    images = len(change)
    random = torch.Generator().manual_seed(seed)
    rows = torch.randint(images, (resamples, images), generator=random)
    ones = torch.ones(resamples, images, dtype=torch.double)
    counts = torch.zeros_like(ones).scatter_add_(1, rows, ones)
    low, high = interval(counts @ change.double() / images)
    return low.to(change), high.to(change)


@torch.no_grad()
def response(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    alphas: Sequence[float],
    absolute: bool = False,
) -> Tensor:
    """Mean scores (number of alphas, number of scores) against the number of sigmas moved.

    Args:
        model: Model of the codes.
        predictor: Predictor of the scores.
        direction: Direction of the move.
        codes: Codes of the direction's space; the first `RESPONSE_CODES` are used.
        alphas: Numbers of sigmas.
        absolute: Whether codes are moved by `place` instead of `shift`.
    """
    move = place if absolute else shift
    few = codes[:RESPONSE_CODES]
    rows = [score_codes(model, predictor, move(few, direction, alpha)).nanmean(0) for alpha in alphas]
    return torch.stack(rows)


def monotonicity(values: Tensor) -> float:
    """Share of the steps of a response (number of alphas,) that have the sign of the total change.

    NaN if the response is unknown or has no steps.
    """
    if len(values) < 2 or values.isnan().any():
        return math.nan
    total = torch.sign(values[-1] - values[0])
    return float((torch.sign(values.diff()) == total).double().mean())
