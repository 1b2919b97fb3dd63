"""Facts of the compared models that a paper states: size, training and hardware."""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from flows.display.page import as_text
from flows.display.table import Noted, Table
from flows.inversion.comparison import Row
from flows.models.base import LatentModel
from flows.storage.trained import TrainingFacts

NOT_RECORDED = "not recorded with the checkpoint"
NOT_COMPARED = "no pair of this model has figures"
NO_PARAMETERS = "the generator is no torch module, or has no parameters"
HEAD = (
    "model", "parameters", "images shown in training", "training images", "training, hours", "trained on",
    "compared on",
)  # fmt: skip
"""Columns of the table of models."""


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """Size and training of a model.

    Attributes:
        parameters: Number of parameters; None if the model has none, as a generator that is no module.
        training: Facts of the training.
    """

    parameters: int | None
    training: TrainingFacts = TrainingFacts()

    @classmethod
    def of(cls, model: LatentModel, training: TrainingFacts | None = None) -> "ModelFacts":
        """Facts of a model; without those of its training, these are unknown."""
        parameters = sum(parameter.numel() for parameter in model.parameters())
        return cls(parameters=parameters or None, training=training or TrainingFacts())

    def as_dict(self) -> dict[str, Any]:
        """Plain values; unknown numbers are NaN, for which JSON has null with the reason."""
        training = self.training
        numbers = {
            "parameters": self.parameters,
            "images_shown": training.images,
            "training_images": training.split_images,
            "training_hours": None if training.seconds is None else training.seconds / 3600,
        }
        known = {name: math.nan if value is None else value for name, value in numbers.items()}
        without = {} if training.hardware else {"trained_on_reason": NOT_RECORDED}
        return {**known, "trained_on": training.hardware, **without}


def compared_on(name: str, rows: Iterable[Row]) -> list[str]:
    """Different names of the hardware on which the pairs of a model were inverted."""
    return list(dict.fromkeys(row.hardware for row in rows if row.model == name and row.hardware))


def models_table(models: Mapping[str, ModelFacts], rows: Iterable[Row]) -> Table:
    """Table with a row for each model; what is not recorded has a note.

    Args:
        models: Facts of the models by name.
        rows: Rows of the comparison, with the hardware of each pair.
    """
    rows = list(rows)
    return Table(
        HEAD, [[name, *facts_cells(facts), hardware_cell(name, rows)] for name, facts in models.items()]
    )


def facts_cells(facts: ModelFacts) -> list[str]:
    """Cells of a model, from its parameters to the hardware of its training."""
    training = facts.training
    hours = None if training.seconds is None else as_text(training.seconds / 3600, 3)
    counts = (
        (facts.parameters, NO_PARAMETERS),
        (training.images, NOT_RECORDED),
        (training.split_images, NOT_RECORDED),
    )
    return [
        *(Noted("–", reason) if count is None else f"{count:,}" for count, reason in counts),
        hours or Noted("–", NOT_RECORDED),
        training.hardware or Noted("–", NOT_RECORDED),
    ]


def hardware_cell(name: str, rows: Iterable[Row]) -> str:
    """Cell with the hardware on which a model was inverted."""
    return "; ".join(compared_on(name, rows)) or Noted("–", NOT_COMPARED)
