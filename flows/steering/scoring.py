"""One scoring of directions: effect, side effects, reach and costs of the moves along each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.bounds import NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.core.options import Options
from flows.data.base import ImageData, given
from flows.errors import DataMissing
from flows.images import reduce, to_bytes, to_unit
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, column_of, predict_images
from flows.steering.base import Direction
from flows.steering.boundary import condition
from flows.steering.evaluate import check_own_scores, own_score, rescore, response
from flows.steering.quality import Quality, distances_by_alpha, faithfulness, moved_images, reach_of
from flows.steering.report import Scored
from flows.steering.survey import score_codes

__all__ = ["ScoreSettings", "score"]

STRIPS = 4
"""Number of images per direction that the page shows."""
NEEDED = "for test images and for KID"
"""Purpose of the data set, for the message without one."""
REAL = 500
"""Minimum number of test images from which the range of each score in the data is estimated."""


@dataclass(frozen=True, kw_only=True)
class ScoreSettings(Options):
    """Settings of a scoring.

    Attributes:
        alpha: Move to either side, in sigmas.
        steps: Number of steps to either side, in response curves and strips.
        n: Number of samples that are moved.
        test: Number of encoded test images that are moved instead of samples; 0 takes samples. If the data
            can be rendered again, the moves are compared with re-renders in which only the factor changes.
        kid: Number of moved images that are compared with as many test images by KID, at every step; 0 skips
            the comparison. Ten images take about one second per direction.
        seed: Seed of the samples, which should not be that of `steer find`.
    """

    alpha: PositiveFloat = 2.0
    steps: PositiveInt = 3
    n: PositiveInt = 500
    test: NonNegativeInt = 0
    kid: NonNegativeInt = 0
    seed: Seed = 1

    @property
    def needs_data(self) -> bool:
        """Whether test images are needed; with them, the reach of directions is measured, too."""
        return bool(self.kid or self.test)

    @property
    def alphas(self) -> list[float]:
        """Moves of response curves and strips, in sigmas."""
        return [self.alpha * i / self.steps for i in range(-self.steps, self.steps + 1)]


def score(
    model: LatentModel,
    predictor: Predictor,
    directions: Sequence[Direction],
    settings: ScoreSettings = ScoreSettings(),
    data: ImageData | None = None,
    without: Sequence[Direction] = (),
) -> Scored:
    """Move samples or encoded test images along directions, and measure the change of all scores.

    Args:
        model: Model in eval mode.
        predictor: Predictor of the scores.
        directions: Directions of one space, each named after a score.
        settings: Settings.
        data: Data set; None measures what needs no images.
        without: Directions to which the others are made orthogonal (conditional projection).

    Raises:
        UserError: A direction is not named after a score, there are too few codes, or no data set where the
            settings need one.
        DataMissing: Files of the data set or packages that the settings need are missing.
    """
    check_own_scores(directions, predictor)
    # Before the long computation, so that missing data and packages are reported at once.
    costs = Costs(model, predictor, settings, data)
    codes = codes_of(model, directions[0].space, settings, data)
    if without:
        directions = [condition(each, without, codes) for each in directions]
    alphas = settings.alphas
    responses = {each.name: response(model, predictor, each, codes, alphas) for each in directions}
    before = score_codes(model, predictor, codes)
    matrix = rescore(model, predictor, directions, codes, settings.alpha, before=before)
    strips = [strips_of(model, predictor, each, codes, before, alphas) for each in directions]
    return Scored(
        matrix=matrix,
        alphas=alphas,
        responses=responses,
        qualities={each.name: costs.of(each, codes, responses[each.name]) for each in directions},
        methods={each.name: each.method for each in directions},
        strips=[strip for each in strips for strip in each],
        moved={
            "space": codes.space,
            "codes": len(codes),
            "of": "test images" if settings.test else "samples",
            "kid_images": costs.images(codes),
        },
    )


def codes_of(model: LatentModel, space: str, settings: ScoreSettings, data: ImageData | None) -> Codes:
    """Codes that are moved: encoded test images, or samples."""
    if not settings.test:
        return model.sample(settings.n, space, settings.seed)
    batch = given(data, NEEDED).first("test", settings.test)
    return model.encode_bytes(batch.images, space, batch.labels)


class Costs:
    """Costs of moves along several directions; the real images to compare with are predicted once.

    Args:
        model: Model whose codes are moved.
        predictor: Predictor of the scores.
        settings: Settings of the scoring.
        data: Data set; None if there is none.

    Raises:
        UserError: Data or packages that the settings need are missing; otherwise no data are needed.
    """

    def __init__(
        self, model: LatentModel, predictor: Predictor, settings: ScoreSettings, data: ImageData | None = None
    ):
        self.model, self.predictor, self.settings, self.data = model, predictor, settings, data
        self.features = PooledFeatures() if settings.kid else None
        self.real, self.compared = torch.empty(0, len(predictor.scores)), torch.empty(0)
        self.rerenders = False
        if settings.needs_data:
            given(data, NEEDED)
        if data is None:
            return
        try:
            split = data.split("test")
        except DataMissing:
            if settings.needs_data:
                raise
            return
        # Without the images that are moved: their distance to themselves would be too small.
        images = split.first(settings.test + max(REAL, settings.kid)).images[settings.test :]
        real = reduce(images, model.bins)
        self.real = predict_images(predictor, to_unit(real, model.bins), model.device)
        self.rerenders = bool(settings.test) and data.can_rerender
        self.compared = real[: settings.kid]

    def images(self, codes: Codes) -> int:
        """Number of images for KID: at most the number of real images."""
        return min(len(self.compared), len(codes), self.settings.kid)

    def of(self, direction: Direction, codes: Codes, response: Tensor) -> Quality:
        """Costs of moves along one direction.

        Args:
            direction: Direction of the moves.
            codes: n codes.
            response: (number of alphas, number of scores), mean scores.
        """
        column = column_of(self.predictor.scores, own_score(direction.name))
        faithful = None
        if self.data is not None and self.rerenders:
            faithful = faithfulness(
                self.model, self.predictor, direction, codes, self.settings.alpha, self.data
            )
        return Quality(
            reach=reach_of(response[:, column], self.real[:, column]) if len(self.real) else float("nan"),
            distances=self.distances(direction, codes, self.settings.alphas),
            faithful=faithful,
        )

    def distances(self, direction: Direction, codes: Codes, alphas: Sequence[float]) -> list[float]:
        """KID of moved images to real ones, for each of `alphas`; empty if no KID is computed."""
        n = self.images(codes)
        if self.features is None or n < 2:
            return []
        real = self.features.held_out(self.compared[:n])
        return distances_by_alpha(self.model, direction, codes[:n], alphas, real, self.features)


def strips_of(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    before: Tensor,
    alphas: Sequence[float],
) -> list[tuple[str, Tensor]]:
    """Strips uint8 (number of alphas, C, H, W) along a direction, the first one with the direction's name.

    Only images in which the direction's own score is defined are moved, such as images with a lamp for the
    hue of the lamp.
    """
    defined = ~before[:, column_of(predictor.scores, own_score(direction.name))].isnan()
    shown = torch.nonzero(defined if defined.any() else ~defined)[:STRIPS, 0]
    few = codes[shown]
    moved = [to_bytes(moved_images(model, direction, few, alpha), model.bins) for alpha in alphas]
    return [
        (direction.name if i == 0 else "", torch.stack([part[i] for part in moved])) for i in range(len(few))
    ]
