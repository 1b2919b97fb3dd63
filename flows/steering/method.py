"""Methods that find directions. To add one, add a file with a subclass of `Method` or `Labelled` here."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from flows.bounds import Checked
from flows.data.base import ImageData
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor, scores_of, true_scores
from flows.steering.base import Direction
from flows.steering.survey import Survey, survey_images, survey_samples

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
    """Base class of methods that find directions."""

    @abstractmethod
    def find(self, task: Task) -> list[Direction]:
        """Find directions in the task's space.

        Raises:
            Unsupported: The model lacks a capability that the method needs.
            UserError: The task lacks something that the method needs.
        """


class Labelled(Method):
    """Base class of methods that learn one direction per score from a survey."""

    def find(self, task: Task) -> list[Direction]:
        """Find one direction for each name.

        Raises:
            UserError: There is no such score, or there are fewer than `FEWEST` codes on a side.
        """
        if not task.names:
            raise UserError("--scores: expected names of scores that the directions should change")
        return [self.one(task.survey, name) for name in task.names]

    @abstractmethod
    def one(self, survey: Survey, name: str) -> Direction:
        """Direction that changes the score with this name; see `find`."""


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
