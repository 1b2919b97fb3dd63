"""What a chain of invertible maps keeps for its backward pass: the memory modes, and their rules."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from flows.checks import check_choice, check_positive
from flows.errors import UserError

MemoryMode = Literal["plain", "checkpoint", "reversible", "anchored"]


@dataclass(frozen=True)
class Memory:
    """How a `Chain` runs where gradients are recorded.

    A step is a map with parameters of its own, together with those without before it: in Glow ActNorm,
    1×1 convolution and coupling.

    Attributes:
        mode: `plain` keeps what autograd asks for. `checkpoint` keeps the input of every step and computes
            the step again in the backward pass. `reversible` keeps the chain's output alone and inverts step
            after step: what is kept does not grow with depth. `anchored` keeps the input of every `every`-th
            step and inverts between them, which bounds how far rounding errors can grow.
        every: steps between two anchors.
    """

    mode: MemoryMode = "plain"
    every: int = 4

    def keeps_input(self, step: int) -> bool:
        """Whether the input of step number `step` is kept for the backward pass."""
        if self.mode == "anchored":
            return step > 0 and step % self.every == 0
        return self.mode in ("plain", "checkpoint")


PLAIN = Memory()
NO_SECOND_DERIVATIVE = (
    "a second derivative through a flow in memory mode 'reversible' or 'anchored' was asked for "
    "(create_graph=True): use flows.memory.set_memory(model, 'plain')"
)


def set_memory(module: nn.Module, mode: MemoryMode, every: int = 4) -> None:
    """Choose the memory mode of every chain within `module`; parameters and results stay the same.

    Codes, likelihoods and files do not depend on the mode, so that a model can be trained on in another one.

    Raises:
        ValueError: an unknown mode, or a part whose second computation would differ from the first.
    """
    check_choice("memory", mode, MemoryMode)
    check_positive(every=every)
    if mode != "plain":
        for name, part in module.named_modules():
            reason = _why_not(part, mode)
            if reason:
                raise UserError(
                    f"memory {mode!r}: {name or type(part).__name__} ({type(part).__name__}) {reason}"
                )
    chains: list[Any] = [part for part in module.modules() if hasattr(part, "memory")]
    if mode != "plain" and not chains:
        raise UserError(f"memory {mode!r}: {type(module).__name__} has no chain of invertible maps")
    for chain in chains:
        chain.memory = Memory(mode, every)


def chains_of(module: nn.Module) -> list[nn.Module]:
    """The chains that a mode acts on: those within `module` that do not stand in another chain."""
    if hasattr(module, "memory"):
        return [module]
    return [chain for child in module.children() for chain in chains_of(child)]


def memory_of(module: nn.Module) -> Memory:
    """The mode that `set_memory` has chosen, of the first chain; plain where there is none."""
    chains: list[Any] = list(chains_of(module))
    return chains[0].memory if chains else PLAIN


def _why_not(part: nn.Module, mode: MemoryMode) -> str:
    """Why this module cannot be computed twice, or nothing."""
    if isinstance(part, nn.modules.dropout._DropoutNd) and part.p > 0:
        return "draws random numbers, and would draw others when it is computed again; use 'plain'"
    if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
        return "updates running statistics, and would do so twice; use 'plain'"
    if getattr(part, "uses_batch_statistics", False):
        if mode != "checkpoint":
            return (
                "normalises by the batch, so that it has no inverse for single examples while it trains; "
                "use 'checkpoint' or 'plain'"
            )
        if getattr(part, "lag", 0.0):
            return "normalises by a running average that will have moved on; use 'plain'"
    return ""


_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def recomputing() -> Iterator[None]:
    """Mark the block as a second computation, in which running statistics stay as they are."""
    token = _recomputing.set(True)
    try:
        yield
    finally:
        _recomputing.reset(token)


def is_recomputing() -> bool:
    """Whether a `recomputing` block is active."""
    return _recomputing.get()
