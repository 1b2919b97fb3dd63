"""What a move costs and how far it reaches: what is kept, distances to data and to the true re-render."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.data.base import Attribute, ImageData
from flows.metrics.perceptual import kernel_distance
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, Score, column_of, predict_images
from flows.steering.base import Direction, shift
from flows.steering.evaluate import own_score

FEWEST = 10
"""Images from which a share of the true edit is told."""
NOTICED = 0.05
"""Change of a score, as a share of its range, below which an image says nothing of whether it is faithful."""


@dataclass(frozen=True)
class Quality:
    """Of one direction.

    Attributes:
        reach: range of the mean of its own score over the response, relative to the spread of that score in
            real images, from their 5 % to their 95 % quantile; not a number where it hardly varies in them.
        distances: KID of moved images to real ones, for each number of sigmas; empty where not asked for.
        faithful: R² of the pixels' change by that of the true re-render, where the data can be drawn again:
            1 is the very edit, 0 as far off as no edit. None where that cannot be told.
    """

    reach: float
    distances: list[float]
    faithful: float | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return dict(vars(self))


def moved_images(model: LatentModel, direction: Direction, codes: Codes, alpha: float) -> Tensor:
    """Images of n codes moved by `alpha` sigmas: (n, C, H, W) in [0, 1], on the host."""
    return model.map_images(shift(codes, direction, alpha), lambda images: images.float())


def reach_of(response: Tensor, real: Tensor) -> float:
    """Range of a mean response (number of alphas,) relative to the inner 90 % of real scores (n,)."""
    low, high = torch.nanquantile(real.double(), torch.tensor([0.05, 0.95], dtype=torch.double))
    return float((response.max() - response.min()) / (high - low)) if high - low > 1e-3 else float("nan")


def distances_by_alpha(
    model: LatentModel,
    direction: Direction,
    codes: Codes,
    alphas: Sequence[float],
    real: Tensor,
    features: Callable[[Tensor], Tensor],
) -> list[float]:
    """KID of moved images to as many real ones, for each number of sigmas.

    Args:
        model: whose codes they are.
        direction: along which.
        codes: n codes.
        alphas: in sigmas.
        real: features (n, F) of as many real images, none of them those that the codes are of.
        features: of uint8 images.
    """
    found = []
    for alpha in alphas:
        images = pixels.to_bytes(moved_images(model, direction, codes, alpha), model.bins)
        found.append(kernel_distance(real, features(images)))
    return found


# Against the truth --------------------------------------------------------------------------------


def attribute_value(attribute: Attribute, scores: Sequence[Score], values: Tensor) -> Tensor:
    """What scores (n, number of scores) say of one attribute, in its own units: (n,)."""
    columns = [i for i, score in enumerate(scores) if score.attribute == attribute.name]
    found = values[:, columns]
    if attribute.kind == "circular":
        return torch.remainder(torch.atan2(found[:, 1], found[:, 0]) / (2 * torch.pi), 1)
    if attribute.kind == "category":
        return found.argmax(1).float()
    if attribute.kind == "binary":
        return (found[:, 0] > 0.5).float()
    return found[:, 0].clamp(attribute.low, attribute.high)


@torch.no_grad()
def faithfulness(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    alpha: float,
    data: ImageData,
) -> float | None:
    """How much a move is like drawing the test image again with the direction's own factor changed.

    The predictor reads the factor from the image as it comes back and from the moved one; the scene is drawn
    with either value, and R² = 1 − Σ|(x(α) − x(0)) − (x*(α) − x*(0))|² / Σ|x*(α) − x*(0)|² over the pixels of
    images in which the two drawings differ and the score has changed noticeably. What the model loses and
    what the predictor misreads stand on both sides.

    Args:
        model: whose codes they are.
        predictor: that reads the factor.
        direction: named after a score of a factor.
        codes: Codes of the first n test images.
        alpha: in sigmas.
        data: of the test images.

    Returns:
        R², or None where the data cannot be drawn again, or in fewer than ten images anything changes.
    """
    index = column_of(predictor.scores, own_score(direction.name))
    told = {each.name: each for each in data.all_attributes()}
    attribute = told.get(predictor.scores[index].attribute)
    if attribute is None or not data.draws_again:
        return None
    images, read, again = [], [], []
    for amount in (0.0, alpha):
        images.append(moved_images(model, direction, codes, amount))
        read.append(predict_images(predictor, images[-1], model.device))
        value = attribute_value(attribute, predictor.scores, read[-1])
        again.append(data.redraw("test", attribute.name, value).float() / 255)
    score, wanted = predictor.scores[index], again[1] - again[0]
    change = (read[1][:, index] - read[0][:, index]).abs() / (score.high - score.low)
    seen = (change > NOTICED) & (wanted != 0).flatten(1).any(1)
    if int(seen.sum()) < FEWEST:
        return None
    missed = (images[1] - images[0])[seen] - wanted[seen]
    return float(1 - missed.square().sum() / wanted[seen].square().sum())
