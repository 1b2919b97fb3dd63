"""Methods that find directions. To add one, add a file with a subclass of `Method` or `Labelled` here."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from flows.core.bounds import Checked
from flows.data.base import ImageData
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, Score, scores_of, true_scores
from flows.steering.base import Direction
from flows.steering.survey import Survey, survey_images, survey_samples
from flows.steering.validation import Plane, folds, plane_from_parts, quality, sides_found

__all__ = ["Labelled", "Method", "Task"]

FEWEST = 10
"""Minimum number of codes on each side of a direction."""


@dataclass
class Task:
    """Model, space and data that a method works on.

    Attributes:
        model: Model whose codes are moved.
        space: Name of the space of the directions.
        names: Names of what the directions change: scores or edits; empty for methods that need none.
        predictor: Predictor that scores samples; None if the true scores of `data` are used.
        data: Data set whose training images are encoded and whose true scores are used; None uses samples.
        n: Number of codes surveyed.
        seed: Seed of the samples.
        temperature: Temperature of the samples.
        cache: Folder for surveys; see `survey_samples`.
    """

    model: LatentModel
    space: str
    names: list[str]
    predictor: Predictor | None = None
    data: ImageData | None = None
    n: int = 4000
    seed: int = 0
    temperature: float = 1.0
    cache: Path | None = None

    @cached_property
    def survey(self) -> Survey:
        """Codes with scores: predicted ones of samples, or true ones of encoded training images.

        Raises:
            UserError: There is neither a predictor nor data, or the data have no attributes.
        """
        if self.data is not None:
            attributes = self.data.all_attributes()
            batch = self.data.first("train", self.n)
            values = batch.labels[:, None].float() if batch.attributes is None else batch.attributes
            if not attributes:
                raise UserError(f"--data {self.data.name}: expected images with known attributes")
            return survey_images(
                self.model,
                batch.images,
                true_scores(attributes, values),
                scores_of(attributes),
                self.space,
                batch.labels,
            )
        if self.predictor is None:
            raise UserError("expected a predictor of the scores, or data with known attributes")
        return survey_samples(
            self.model, self.predictor, self.n, self.space, self.seed, self.temperature, self.cache
        )

    def codes(self, n: int) -> Codes:
        """First n codes: encoded training images with their classes, or samples if there are no data."""
        if self.data is None:
            return self.sample(n)
        batch = self.data.first("train", n)
        return self.model.encode_bytes(batch.images, self.space, batch.labels)

    def sample(self, n: int) -> Codes:
        """First n samples of the space and seed."""
        return self.model.sample(n, self.space, self.seed)


class Method(Checked, ABC):
    """Base class of methods that find directions.

    Attributes:
        needs_scores: Whether the method learns from scores of codes: the predictor's for samples, the true
            ones for images.
        needs_predictor: Whether the method asks the predictor itself, for example for its gradient.
    """

    needs_scores: ClassVar[bool] = False
    needs_predictor: ClassVar[bool] = False

    @abstractmethod
    def find(self, task: Task) -> list[Direction]:
        """Find directions in the task's space.

        Raises:
            Unsupported: The model lacks a capability that the method needs.
            UserError: The task lacks something that the method needs.
        """


class Labelled(Method):
    """Base class of methods that learn one direction per score from a survey.

    The plane is placed by all surveyed codes for which the score is defined (`plane_from_parts`). The
    evidence has the accuracy and the balanced accuracy of a cross-validation, in which no code is classified
    by a plane that it took part in, the share of the majority, which an accuracy has to exceed, and the
    p-value of shuffled labels (`quality`).

    Attributes:
        method: Name in tables and files.
    """

    needs_scores = True

    method: ClassVar[str]

    def find(self, task: Task) -> list[Direction]:
        """Find one direction for each name.

        Raises:
            UserError: There is no such score, or there are fewer than `FEWEST` codes on a side.
        """
        if not task.names:
            raise UserError("--scores: expected names of scores that the directions should change")
        return [self.one(task.survey, name) for name in task.names]

    def one(self, survey: Survey, name: str) -> Direction:
        """Direction that changes the score with this name; see `find`."""
        codes, value = self.values(survey, name)
        size = codes.shape[1]
        codes, basis = in_their_span(codes.double())
        threshold = self.threshold(value, survey.score(name))
        above = value > threshold
        normal, evidence = self.normal(codes, value, threshold, size)
        fold = folds(above)

        @cache
        def normal_without(k: int) -> Tensor:
            return self.normal(codes[fold != k], value[fold != k], threshold, size)[0]

        plane = plane_from_parts(codes, above, fold, normal, normal_without)
        sides = sides_found(codes, above, fold, normal_without)
        figures = {**quality(codes, above, sides), **evidence}
        return direction_in(survey, name, self.method, (codes, basis), normal, plane, figures)

    def values(self, survey: Survey, name: str) -> tuple[Tensor, Tensor]:
        """Codes (m, D) for which a score is defined, and its values (m,) as the method takes them."""
        return known(survey, name)

    @abstractmethod
    def threshold(self, value: Tensor, score: Score) -> float:
        """Value of a score that divides the codes in two, from the values (m,).

        Raises:
            UserError: There are fewer than `FEWEST` codes on a side.
        """

    @abstractmethod
    def normal(
        self, codes: Tensor, value: Tensor, threshold: float, size: int
    ) -> tuple[Tensor, dict[str, float]]:
        """Unit vector (K,), fp64, that points from low to high values, and figures that support it.

        Args:
            codes: (m, K), fp64, coordinates of codes in an orthonormal basis of a part of the space.
            value: (m,), values of the score.
            threshold: Value that divides the codes in two; there are codes on either side.
            size: Number of dimensions of the whole space.
        """


def in_their_span(codes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Coordinates of codes (m, D) in an orthonormal basis of their span, and the basis (D, m).

    If there are fewer codes than dimensions, whatever is computed from products of codes is faster there. If
    not, the codes are returned, and None.
    """
    if len(codes) >= codes.shape[1]:
        return codes, None
    basis, coordinates = torch.linalg.qr(codes.T)
    return coordinates.T, basis


def direction_in(
    survey: Survey,
    name: str,
    method: str,
    span: tuple[Tensor, Tensor | None],
    normal: Tensor,
    plane: Plane,
    evidence: dict[str, float],
) -> Direction:
    """Direction in the space of a survey, from its normal in the span of the codes.

    Args:
        survey: Survey that it was found on.
        name: Name of its score.
        method: Name of the method.
        span: Coordinates of the codes and the basis, as `in_their_span` gives them.
        normal: (K,), fp64, unit vector in these coordinates.
        plane: Plane with this normal.
        evidence: Figures that support the direction.
    """
    codes, basis = span
    return Direction(
        name=name,
        vector=(normal if basis is None else basis @ normal).float(),
        bias=plane.bias,
        bias_interval=plane.interval,
        space=survey.codes.space,
        sigma=float((codes @ normal).std()),
        method=method,
        fingerprint=survey.fingerprint,
        evidence=evidence,
    )


def known(survey: Survey, name: str) -> tuple[Tensor, Tensor]:
    """Codes (m, D) for which a score is defined, and the values (m,) of the score.

    Raises:
        UserError: The score is defined for no code.
    """
    value = survey.column(name)
    defined = ~torch.isnan(value)
    if not defined.any():
        raise UserError(
            f"{name}: the score is defined for none of {len(value)} codes; survey more codes (--n)"
        )
    return survey.codes.values[defined], value[defined]
