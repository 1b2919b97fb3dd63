"""What moving along a direction does: to the score it is named after, and to all others."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, Score, column_of
from flows.steering.base import Direction, place, shift
from flows.steering.survey import score_codes

RESPONSE_CODES = 100
"""Codes of which a response is the mean."""
NOTHING = 0.01
"""Change in spreads below which a score has not changed."""
MIN_QUALITY = 0.5
"""Quality of a score below which its change does not count as leakage: the predictor hardly tells it."""


@dataclass(frozen=True)
class Rescoring:
    """Changes of scores by moves of α, one row for each direction, one column for each score.

    A change is half of that from −α to +α: a lamp that is on already cannot be switched on, and can be off.

    Attributes:
        directions: names.
        scores: of the predictor.
        signed: (directions, scores), mean change of every score, in its spread, over the images in which the
            direction's own says something before and after. What another score says nothing of has not
            changed: a tower's hue, in a room.
        clipped: mean of the positive changes alone, max(0, ·): HiGAN's Δ.
        low, high: 95 % bootstrap interval of `signed`.
        spread: (scores,), standard deviation over the untouched images.
        alpha: sigmas moved.
        kept: for each direction, the share of the other attributes' yes-or-no scores that are on the same
            side of ½ after the move, at −α and +α, the worse of both.
    """

    directions: list[str]
    scores: tuple[Score, ...]
    signed: Tensor
    clipped: Tensor
    low: Tensor
    high: Tensor
    spread: Tensor
    alpha: float
    kept: list[float]

    def column(self, name: str) -> int:
        """The column of the score of that name."""
        return column_of(self.scores, name)

    def own(self, direction: str) -> float:
        """Change of the score that a direction is named after."""
        return float(self.signed[self.directions.index(direction), self.column(own_score(direction))])

    def leakage(self, direction: str, score: str) -> float:
        """|change of another score| relative to that of its own; infinite where that is nothing."""
        other = float(self.signed[self.directions.index(direction), self.column(score)])
        own = self.own(direction)
        return abs(other / own) if abs(own) >= NOTHING else float("inf")

    def others(self, direction: str) -> list[int]:
        """Columns of other attributes than its own that the predictor tells well enough."""
        own = self.scores[self.column(own_score(direction))]
        return [
            i
            for i, score in enumerate(self.scores)
            if score.attribute != own.attribute and score.quality >= MIN_QUALITY
        ]

    def worst(self, direction: str) -> Score | None:
        """The score of another attribute that changes most, of those that the predictor tells well enough.

        None where there is none.
        """
        row = self.signed[self.directions.index(direction)].abs()
        others = self.others(direction)
        return self.scores[max(others, key=lambda i: float(row[i]))] if others else None

    def worst_leakage(self, direction: str) -> float:
        """Its `leakage`; not a number where there is none."""
        worst = self.worst(direction)
        return float("nan") if worst is None else self.leakage(direction, worst.name)


def own_score(direction: str) -> str:
    """The score that a direction is named after: `daylight` of `daylight without lamp_on`."""
    return direction.split(" without ")[0]


def check_own_scores(directions: Sequence[Direction], predictor: Predictor) -> None:
    """Raise ValueError where a direction is not named after one of the predictor's scores."""
    known = [score.name for score in predictor.scores]
    for each in directions:
        if own_score(each.name) not in known:
            raise UserError(
                f"direction {each.name!r} is named after no score, so that none is its own; choose others by "
                f"--names; the predictor tells {', '.join(known)}"
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
    """Move codes by ± `alpha` sigmas along every direction and let the predictor see what changed.

    Args:
        model: whose codes they are.
        predictor: of the scores.
        directions: of one space.
        codes: n codes of that space; new samples or real images, none that a direction was found on.
        alpha: in sigmas.
        resamples: of the bootstrap, over images.
        before: scores of the codes as they are, where they are known.

    Returns:
        the matrix (HiGAN, Yang et al. 2021, with its sign, and intervals).
    """
    if before is None:
        before = score_codes(model, predictor, codes)
    spread = deviation(before).clamp(min=1e-3)
    scores, told, kept = predictor.scores, [], []
    for each in directions:
        own = own_score(each.name)
        low, high = (score_codes(model, predictor, shift(codes, each, amount)) for amount in (-alpha, alpha))
        told.append(visible_changes((high - low) / 2 / spread, column_of(scores, own)))
        kept.append(min(kept_share(before, after, scores, own) for after in (low, high)))
    lows, highs = zip(*(bootstrap(change, resamples) for change in told), strict=True)
    return Rescoring(
        [each.name for each in directions], scores,
        torch.stack([change.mean(0) for change in told]),
        torch.stack([change.clamp(min=0).mean(0) for change in told]),
        torch.stack(lows), torch.stack(highs), spread, alpha, kept,
    )  # fmt: skip


def visible_changes(change: Tensor, own: int) -> Tensor:
    """Changes (images, scores) of the images that column `own` says something of, 0 for what is not known.

    One image without any change where there is none.
    """
    told = change[~change[:, own].isnan()].nan_to_num()
    return told if len(told) else torch.zeros(1, change.shape[1])


def kept_share(before: Tensor, after: Tensor, scores: Sequence[Score], own: str) -> float:
    """Share of other attributes' probabilities that stay on their side of ½, over (n, scores) twice."""
    attribute = next(score.attribute for score in scores if score.name == own)
    columns = [i for i, each in enumerate(scores) if each.probability and each.attribute != attribute]
    if not columns:
        return float("nan")
    first, second = before[:, columns], after[:, columns]
    seen = ~(first.isnan() | second.isnan())
    return float(((first > 0.5) == (second > 0.5))[seen].double().mean())


def deviation(values: Tensor) -> Tensor:
    """Standard deviation over the images (axis 0) in which a score says something."""
    return (values - values.nanmean(0)).square().nanmean(0).sqrt().nan_to_num()


def bootstrap(change: Tensor, resamples: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """95 % interval of the mean over images of changes (images, scores): (scores,) each."""
    images = len(change)
    random = torch.Generator().manual_seed(seed)
    drawn = torch.randint(images, (resamples, images), generator=random)
    counts = torch.zeros(resamples, images).scatter_add_(1, drawn, torch.ones(resamples, images))
    low, high = torch.quantile(counts @ change / images, torch.tensor([0.025, 0.975]), dim=0)
    return low, high


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
        model: whose codes they are.
        predictor: of the scores.
        direction: along which.
        codes: Codes of the direction's space; the first `RESPONSE_CODES` are taken.
        alphas: in sigmas.
        absolute: `place` instead of `shift`.
    """
    move = place if absolute else shift
    few = codes[:RESPONSE_CODES]
    rows = [score_codes(model, predictor, move(few, direction, alpha)).nanmean(0) for alpha in alphas]
    return torch.stack(rows)


def monotonicity(values: Tensor) -> float:
    """Share of the steps of a response (number of alphas,) that go the way of the whole."""
    whole = torch.sign(values[-1] - values[0])
    return float((torch.sign(values.diff()) == whole).double().mean())
