"""One optimiser's share of a training step, and what a model is trained for."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from flows.data.base import Batch, ImageData, Split
from flows.errors import UserError
from flows.stored import StoredModule

Loss = Callable[[Batch, torch.Generator, int], tuple[Tensor, dict[str, Tensor]]]
"""(batch, generator, number of the step) to (scalar loss, named values to log); the generator is the same on
every rank."""


@dataclass
class Phase:
    """A loss and the parameters it moves.

    Attributes:
        name: for logs and error messages.
        params: what this phase's optimiser steps.
        loss: see `Loss`.
        part: the wrapped module through whose forward the loss reaches `params`: a loss that calls the bare
            module instead trains without gradient synchronisation, and nobody notices.
        every: run in every n-th step only.
        start, stop: the images shown between which it runs.
        span: the images over which its learning rate warms up and decays.
        lr: after warm-up; None takes the run's.
        betas: of the optimiser; None takes the run's.
        begin: called with the evaluated model (the average where there is one) before the first step.
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
        """Whether it runs in the step after so many images and steps."""
        return self.start <= images < self.stop and steps % self.every == 0


class Evaluation(NamedTuple):
    """What a run sees when it stops to look.

    Attributes:
        values: for the log.
        score: lower is better; the model with the lowest is exported.
        line: for the terminal.
        pictures: name to uint8 (C, height, width).
    """

    values: dict[str, float]
    score: float
    line: str
    pictures: dict[str, Tensor]


class Objective(ABC):
    """What a model is trained for: a flow has one phase, a GAN two; one loop runs them all, in order.

    To add one: a file in `flows/training/objectives/`, a class whose constructor's arguments are what a
    config may set under `objective`.

    Attributes:
        trains: the class of models it takes.
    """

    trains: ClassVar[type[StoredModule]]

    def leaves_parameters_out(self, model: StoredModule) -> bool:
        """Whether some steps leave out parameters of a wrapped part, which its wrapper has to look for."""
        return False

    def check(self, model: StoredModule, images: int) -> None:
        """Raise ValueError where it cannot train this model with so many images."""
        if not isinstance(model, self.trains):
            raise UserError(
                f"objective {type(self).__name__} trains a {self.trains.__name__}, and "
                f"{type(model).__name__} is none; set another objective"
            )

    def initialise(self, model: StoredModule, first: Batch, seed: int) -> None:
        """Set what is set from data, on the bare model; not called without `initialisation_images`."""
        raise TypeError(f"{type(self).__name__} asks for images and does not implement initialise")

    def initialisation_images(self, model: StoredModule) -> int:
        """How many images `initialise` wants; 0 where there is nothing to set."""
        return 0

    @abstractmethod
    def parts(self, model: StoredModule) -> list[nn.Module]:
        """The modules that are wrapped, so that gradients are synchronised."""

    @abstractmethod
    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        """The phases, whose losses go through the wrapped `parts`, in the order of `self.parts`."""

    def advance(self, model: StoredModule, shown: int) -> None:
        """Set what depends on the images shown so far, before every step and before every look."""
        return

    @abstractmethod
    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        """Evaluation at the evaluated model, on the main process.

        Args:
            model: the average where there is one.
            held_out: the validation split.
            images: how many of it; None takes all.
            shown: training images so far.
        """

    @abstractmethod
    def report(self, folder: Path, data: ImageData, device: str) -> dict[str, Any]:
        """Evaluate the exported model of a run on the test split, once, and write what stands at its end."""
