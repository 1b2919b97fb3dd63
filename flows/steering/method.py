"""Ways to find directions; to add one, a file in this folder with a subclass of `Method` or `Labelled`."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from flows.data.base import ImageData
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, scores_of, true_scores
from flows.steering.base import Direction
from flows.steering.survey import Survey, survey_images, survey_samples

FEWEST = 10
"""Codes on each side, below which no direction is sought."""


@dataclass
class Task:
    """What a method may look at.

    Attributes:
        model: whose codes are moved.
        space: of the directions.
        names: of what they should change; scores for labelled methods, none for those that find their own.
        predictor: that scores samples; None where the data's truth is taken.
        data: whose training images are encoded and whose truth is taken; None takes samples.
        n: codes surveyed.
        seed: of samples.
        temperature: of samples.
        cache: folder for surveys; see `survey_samples`.
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
        """Codes with scores: of samples as the predictor sees them, or of real images as they are.

        Raises:
            ValueError: neither predictor nor data, or data that tells nothing.
        """
        if self.data is not None:
            told = self.data.all_attributes()
            known = self.data.first("train", self.n)
            values = known.labels[:, None].float() if known.attributes is None else known.attributes
            if not told:
                raise UserError(f"--data {self.data.name}: nothing is known of its images")
            return survey_images(
                self.model, known.images, true_scores(told, values), scores_of(told), self.space, known.labels
            )
        if self.predictor is None:
            raise UserError("expected a predictor of the scores, or data whose truth is known")
        return survey_samples(
            self.model, self.predictor, self.n, self.space, self.seed, self.temperature, self.cache
        )

    def codes(self, n: int) -> Codes:
        """n codes: real images encoded, with their classes, or samples of the seed."""
        if self.data is None:
            return self.sample(n)
        batch = self.data.first("train", n)
        return self.model.encode_bytes(batch.images, self.space, batch.labels)

    def sample(self, n: int) -> Codes:
        """The first n samples of the space and seed."""
        return self.model.sample(n, self.space, self.seed)


class Method(ABC):
    """A way to find directions."""

    @abstractmethod
    def find(self, task: Task) -> list[Direction]:
        """Directions in the task's space.

        Raises:
            ValueError: the task lacks what this method needs, or does not bear it.
        """


class Labelled(Method):
    """A method that learns from a survey, one direction for each score that is asked for."""

    def find(self, task: Task) -> list[Direction]:
        """One direction for each name.

        Raises:
            ValueError: no such score, or fewer than ten codes on a side.
        """
        if not task.names:
            raise UserError("--scores: name those that the directions should change")
        return [self.one(task.survey, name) for name in task.names]

    @abstractmethod
    def one(self, survey: Survey, name: str) -> Direction:
        """The direction that changes this score; see `find`."""


def known(survey: Survey, name: str) -> tuple[Tensor, Tensor]:
    """Values of the codes (m, D), and of a score (m,), where the score is defined."""
    value = survey.column(name)
    seen = ~torch.isnan(value)
    return survey.codes.values[seen], value[seen]
