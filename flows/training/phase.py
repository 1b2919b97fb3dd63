"""One optimiser's share of a training step."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flows.data.base import Batch

Loss = Callable[[Batch, torch.Generator], tuple[Tensor, dict[str, Tensor]]]
"""(batch, generator) to (scalar loss, named values to log); the generator is the same on every rank."""


@dataclass
class Phase:
    """A loss and the parameters it moves.

    An objective is a function `(model) -> list[Phase]`: a flow has one phase, a GAN two, and one
    loop runs them all in order. `model` is the wrapped one: a loss that calls a method of the bare model
    instead trains without gradient synchronisation, and nobody notices.

    Attributes:
        name: for logs and error messages.
        params: what this phase's optimiser steps.
        loss: see `Loss`.
        every: run in every n-th step only.
    """

    name: str
    params: list[nn.Parameter]
    loss: Loss
    every: int = 1
