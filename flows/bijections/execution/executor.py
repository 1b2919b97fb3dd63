"""Interface of an executor, and the plain one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from torch import Tensor

from flows.bijections.base import Mapped
from flows.bijections.execution.folding import Step
from flows.core.numerics import zero_log_det


class Executor(ABC):
    """Way of running adjacent steps of a chain: the same map as the steps one after the other.

    The law `execution` of `flows.testing` compares every executor with `Chain.one_by_one`, the definition.

    Attributes:
        name: Name in a plan's explanation.
        steps: Steps that it runs, in the order of the forward direction.
    """

    name: ClassVar[str]
    steps: Sequence[Step]

    @property
    def label(self) -> str:
        """Name, with settings that a reader of the plan needs."""
        return self.name

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        """Map data to latent. The log-det leaves out folded channel maps, which the plan adds."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Map latent to data; the log-det leaves out folded channel maps."""


class Plain(Executor):
    """Steps one after the other; autograd keeps what it needs."""

    name = "plain"

    def __init__(self, steps: Sequence[Step]):
        self.steps = steps

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        total = zero_log_det(x)
        for step in self.steps:
            x, log_det = step(x, context)
            total = total if log_det is None else total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        total = zero_log_det(z)
        for step in reversed(self.steps):
            z, log_det = step.inverse(z, context)
            total = total if log_det is None else total + log_det
        return z, total
