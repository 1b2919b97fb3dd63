"""Memory modes: the tensors that a chain of bijections keeps for its backward pass."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, get_args

from torch import nn

from flows.core.checks import check_choice, check_positive
from flows.core.context import set_within
from flows.core.torch_internals import is_random, tracks_statistics
from flows.errors import UserError

MemoryMode = Literal["plain", "checkpoint", "reversible", "anchored"]
MEMORY_MODES: tuple[MemoryMode, ...] = get_args(MemoryMode)


@dataclass(frozen=True)
class Memory:
    """Memory mode of a `Chain` when gradients are recorded.

    A step is a map with parameters, together with the parameter-free maps and folded channel maps before it:
    in Glow, a step is ActNorm, 1×1 convolution and coupling.

    Attributes:
        mode: Name of the mode. `plain` keeps the tensors that autograd needs. `checkpoint` keeps the input of
            every step and recomputes the step in the backward pass. `reversible` keeps only the output of
            the chain and inverts the steps one by one, so memory does not grow with depth. `anchored` keeps
            the input of every `every`-th step and inverts between them, which bounds the growth of rounding
            errors.
        every: Number of steps between two anchors.
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
    "the memory modes 'reversible' and 'anchored' do not support second derivatives of a flow "
    "(create_graph=True): use flows.memory.set_memory(model, 'plain')"
)


def set_memory(module: nn.Module, mode: MemoryMode, every: int = 4) -> None:
    """Set the memory mode of every chain in `module`; parameters and results stay the same.

    Codes, likelihoods and files do not depend on the mode, so training can continue in another one.

    Raises:
        UserError: The mode is unknown, `module` has no chain, or a second computation of a submodule would
            differ from the first.
    """
    check_choice("memory", mode, MemoryMode)
    check_positive(every=every)
    reason = why_not_twice(module, mode)
    if reason:
        raise UserError(f"memory {mode!r}: {reason}")
    chains: list[Any] = [part for part in module.modules() if has_memory_mode(part)]
    if mode != "plain" and not chains:
        raise UserError(f"memory {mode!r}: {type(module).__name__} has no chain of bijections")
    for chain in chains:
        chain.memory = Memory(mode, every)


def why_not_twice(module: nn.Module, mode: MemoryMode) -> str:
    """Reason why a submodule cannot be computed twice, as a memory mode does, or an empty string."""
    if mode == "plain":
        return ""
    for name, part in module.named_modules():
        reason = _why_not(part, mode)
        if reason:
            return f"{name or type(part).__name__} ({type(part).__name__}) {reason}"
    return ""


def has_memory_mode(module: nn.Module) -> bool:
    """Whether a module is a chain, whose attribute `memory` is its memory mode."""
    return isinstance(getattr(module, "memory", None), Memory)


def chains_of(module: nn.Module) -> list[nn.Module]:
    """Chains to which a memory mode applies: those in `module` that are not nested in another chain."""
    if has_memory_mode(module):
        return [module]
    return [chain for child in module.children() for chain in chains_of(child)]


def memory_of(module: nn.Module) -> Memory:
    """Memory mode of the first chain, as set by `set_memory`; plain if there is no chain."""
    chains: list[Any] = list(chains_of(module))
    return chains[0].memory if chains else PLAIN


def _why_not(part: nn.Module, mode: MemoryMode) -> str:
    """Reason why this module cannot be computed twice, or an empty string."""
    if is_random(part):
        return "uses random numbers, which would differ in a second computation; use 'plain'"
    if tracks_statistics(part):
        return "updates running statistics, which a second computation would update again; use 'plain'"
    if getattr(part, "uses_batch_statistics", False):
        if mode != "checkpoint":
            return (
                "normalises by the batch in training mode, which cannot be inverted for single examples; "
                "use 'checkpoint' or 'plain'"
            )
        if getattr(part, "lag", 0.0):
            return "normalises by a running average, which changes before the second computation; use 'plain'"
    return ""


_recomputing: ContextVar[bool] = ContextVar("recomputing", default=False)


@contextmanager
def recomputing() -> Iterator[None]:
    """Mark the block as a second computation, in which running statistics are not updated."""
    with set_within(_recomputing, True):
        yield


def is_recomputing() -> bool:
    """Whether a `recomputing` block is active."""
    return _recomputing.get()
