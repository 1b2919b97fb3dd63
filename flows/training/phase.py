"""Phases, each one optimiser's part of a training step, and objectives, which define a model's training."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flows.core.arguments import Recorded
from flows.data.base import Batch, ImageData, Split
from flows.errors import UserError
from flows.memory import memory_of
from flows.models.base import LikelihoodModel
from flows.storage.stored import StoredModule
from flows.training import guard
from flows.training.settings import Training

Loss = Callable[[Batch, torch.Generator, int], tuple[Tensor, dict[str, Tensor]]]
"""Loss of a phase: (batch, generator, step number) to (scalar loss, named values to log).

The generator is the same on every rank."""


@dataclass
class Phase:
    """Loss and the parameters that it trains.

    Attributes:
        name: Name for logs and error messages.
        params: Parameters that this phase's optimiser updates.
        loss: Loss function; see `Loss`.
        part: Wrapped module through whose forward the loss reaches `params`. A loss that calls the bare
            module instead trains without gradient synchronisation, and without an error.
        every: Interval in steps between two runs of the phase.
        start, stop: Range of images shown, [start, stop), in which the phase runs.
        span: Range of images over which the learning rate warms up and decays.
        lr: Learning rate after warm-up; None uses the run's.
        betas: Betas of the optimiser; None uses the run's.
        begin: Function called with the evaluated model (the average, if there is one) before the first step.
    """

    name: str
    params: list[nn.Parameter]
    loss: Loss
    part: nn.Module
    every: int = 1
    start: int = 0
    stop: float = math.inf
    span: tuple[int, float] = (0, math.inf)
    lr: float | None = None
    betas: tuple[float, float] | None = None
    begin: Callable[[StoredModule], None] | None = None

    def is_due(self, images: int, steps: int) -> bool:
        """Whether the phase runs in the step after `images` images and `steps` steps."""
        return self.start <= images < self.stop and steps % self.every == 0


class Evaluation(NamedTuple):
    """Result of an evaluation during training.

    Attributes:
        values: Values for the log.
        score: Score of the model; the model with the lowest score is exported. NaN or infinite if there is
            none.
        line: Summary for the terminal.
        pictures: Name to uint8 (C, height, width).
        unknown: Name of a value to the reason why it is NaN.
    """

    values: dict[str, float]
    score: float
    line: str
    pictures: dict[str, Tensor]
    unknown: Mapping[str, str] = MappingProxyType({})


class Reading(Protocol):
    """Result of `Objective.watch`."""

    @property
    def is_sound(self) -> bool:
        """Whether training may go on in its memory mode."""
        ...

    def scalars(self) -> dict[str, float]:
        """Values for the log, by name."""
        ...


class Objective(Recorded, ABC):
    """Training objective of a model: the phases of a step, the evaluation, and what else it learned.

    A flow has one phase, a GAN two; the training loop runs all phases in order.

    To add one: create a file in `flows/training/objectives/` with a subclass. A config may set the arguments
    of its constructor under `objective`.

    Attributes:
        trains: Class of the models that the objective trains.
    """

    trains: ClassVar[type[StoredModule]]

    def leaves_parameters_out(self, model: StoredModule) -> bool:
        """Whether some steps leave parameters of a wrapped part unused; its wrapper then looks for them."""
        return False

    def check(self, model: StoredModule, images: int) -> None:
        """Raise UserError if the objective cannot train this model with `images` images."""
        if not isinstance(model, self.trains):
            raise UserError(
                f"objective {type(self).__name__}: expected a model of class {self.trains.__name__}, "
                f"got {type(model).__name__}; set another objective"
            )

    def initialise(self, model: StoredModule, first: Batch, seed: int) -> None:
        """Initialise the bare model from data; called only if `initialisation_images` is above 0."""
        raise TypeError(f"{type(self).__name__} has initialisation_images and does not implement initialise")

    def initialisation_images(self, model: StoredModule) -> int:
        """Number of images that `initialise` needs; 0 if nothing is initialised from data."""
        return 0

    def is_complete(self, model: StoredModule) -> bool:
        """Whether the model can be exported; one that grows cannot before it has its final size."""
        return True

    @abstractmethod
    def parts(self, model: StoredModule) -> list[nn.Module]:
        """Modules to wrap, so that their gradients are synchronised."""

    @abstractmethod
    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        """Phases, whose losses call the wrapped `parts`, which are in the order of `self.parts`."""

    def advance(self, model: StoredModule, shown: int) -> None:
        """Update what depends on the images shown so far, before every step and every evaluation."""
        return

    @abstractmethod
    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        """Evaluate the model on held-out images, on the main process.

        A NonFinite does not end the training; `fit` logs it as an evaluation without a score.

        Args:
            model: Model with averaged weights, if there are any.
            held_out: Validation split.
            images: Number of images of the split; None uses all.
            shown: Number of training images shown so far.
        """

    def watch(self, model: StoredModule, batch: Batch, accelerator: Accelerator) -> Reading | None:
        """Check the training itself, every `training.guard_every` images; None if there is nothing to check.

        The default checks that rebuilt activations of a likelihood model still equal the original ones.

        Args:
            model: Bare model.
            batch: Batch of this rank; every rank calls this.
            accelerator: Accelerator of all ranks.
        """
        if not isinstance(model, LikelihoodModel) or not guard.is_watched(memory_of(model)):
            return None
        return guard.measure(model, batch, accelerator)

    def conclude(self, folder: Path, data: ImageData, training: Training, accelerator: Accelerator) -> None:
        """Learn what needs further trainings, once the model is in the folder; every rank calls this.

        Args:
            folder: Folder of the run.
            data: Data set of the run.
            training: Settings of the run.
            accelerator: Accelerator of all ranks.

        Raises:
            KeyboardInterrupt: A signal arrived.
        """
        return

    def trainings(self, data: ImageData) -> int:
        """Number of trainings of a run, those of `conclude` among them."""
        return 1

    def finish(self, model: StoredModule, folder: Path) -> dict[str, Any]:
        """Write what training has learned besides the model, and return figures for the report.

        Args:
            model: Exported model.
            folder: Folder of the run.
        """
        return {}
