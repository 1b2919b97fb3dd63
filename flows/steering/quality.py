"""Quality of a direction: reach, distance of moved images to real ones, agreement with a re-render."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.statistics import FEWEST
from flows.data.base import Attribute, ImageData
from flows.metrics.perceptual import kernel_distance
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, Score, column_of, predict_images
from flows.steering.base import Direction, shift
from flows.steering.evaluate import own_score

__all__ = ["Quality", "faithfulness"]

NOTICED = 0.05
"""Minimum change of a score, as a share of its range, for an image to count in `faithfulness`."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """Quality of one direction.

    Attributes:
        reach: Range of the mean of the direction's own score over the response, relative to the range of that
            score in real images from the 5 % to the 95 % quantile; NaN if it hardly varies in them.
        distances: KID of moved images to real ones, for each number of sigmas; empty if not requested.
        faithful: R² of the change of the pixels with respect to that of the true re-render: 1 if equal, 0 if
            no closer than no edit. None if the data cannot be rendered again or too few images change.
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
    """Range of a mean response (number of alphas,) relative to the central 90 % of real scores (n,)."""
    if len(real) < FEWEST:
        return math.nan
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
        model: Model of the codes.
        direction: Direction of the moves.
        codes: n codes.
        alphas: Numbers of sigmas.
        real: (n, F), features of real images, other than those of the codes.
        features: Function from uint8 images to features (n, F).
    """
    distances = []
    for alpha in alphas:
        images = pixels.to_bytes(moved_images(model, direction, codes, alpha), model.bins)
        distances.append(kernel_distance(real, features(images)))
    return distances


# Comparison with a re-render ----------------------------------------------------------------------


def attribute_value(attribute: Attribute, scores: Sequence[Score], values: Tensor) -> Tensor:
    """Value of one attribute, in its own units, (n,), from scores (n, number of scores)."""
    columns = [i for i, score in enumerate(scores) if score.attribute == attribute.name]
    own = values[:, columns]
    if attribute.kind == "circular":
        return torch.remainder(torch.atan2(own[:, 1], own[:, 0]) / (2 * torch.pi), 1)
    if attribute.kind == "category":
        return own.argmax(1).float()
    if attribute.kind == "binary":
        return (own[:, 0] > 0.5).float()
    return own[:, 0].clamp(attribute.low, attribute.high)


@torch.no_grad()
def faithfulness(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    alpha: float,
    data: ImageData,
) -> float | None:
    """R² of a move with respect to rendering the test images again with the direction's own factor changed.

    The predictor reads the factor from the reconstruction and from the moved image, and the scene is rendered
    with both values. R² = 1 − Σ|(x(α) − x(0)) − (x*(α) − x*(0))|² / Σ|x*(α) − x*(0)|², over the pixels of
    images in which the two renderings differ and the score has changed by more than `NOTICED`. Reconstruction
    errors and prediction errors occur in both terms of each difference and largely cancel.

    Args:
        model: Model of the codes.
        predictor: Predictor that reads the factor.
        direction: Direction that is named after a score of the factor.
        codes: Codes of the first n test images.
        alpha: Number of sigmas.
        data: Data set of the test images.

    Returns:
        R², or None if the data cannot be rendered again or fewer than ten images change.
    """
    index = column_of(predictor.scores, own_score(direction.name))
    attributes = {each.name: each for each in data.all_attributes()}
    attribute = attributes.get(predictor.scores[index].attribute)
    if attribute is None or not data.can_rerender:
        return None
    images, scores, rendered = [], [], []
    for amount in (0.0, alpha):
        images.append(moved_images(model, direction, codes, amount))
        scores.append(predict_images(predictor, images[-1], model.device))
        value = attribute_value(attribute, predictor.scores, scores[-1])
        rendered.append(pixels.to_unit(data.rerender("test", attribute.name, value), model.bins))
    score, target = predictor.scores[index], rendered[1] - rendered[0]
    change = (scores[1][:, index] - scores[0][:, index]).abs() / (score.high - score.low)
    seen = (change > NOTICED) & (target != 0).flatten(1).any(1)
    if int(seen.sum()) < FEWEST:
        return None
    error = (images[1] - images[0])[seen] - target[seen]
    return float(1 - error.square().sum() / target[seen].square().sum())
