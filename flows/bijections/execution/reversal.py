"""Executors of the memory modes: recomputation, and inversion.

Inversion reconstructs the activations that autograd would have kept. One autograd function represents a whole
chain and saves the chain's output. Its backward pass visits the steps in reverse order: each step
reconstructs its input from its output and turns the gradients of its output into those of its input and
parameters (`Bijection.pull_back`; RevNet, Gomez et al. 2017, arXiv 1707.04585, with the log-determinant as a
second output). Parameters are inputs of that function, so that DistributedDataParallel sees their gradients.
No storage is freed explicitly: an activation is released when the caller keeps no reference to it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from flows.bijections.base import Mapped
from flows.bijections.execution.executor import Executor, Plain
from flows.bijections.execution.folding import Step
from flows.core.numerics import zero_log_det
from flows.core.torch_internals import transforms_are_active
from flows.memory import NO_SECOND_DERIVATIVE, Memory, MemoryMode, recomputing


class Checkpointed(Executor):
    """Keeps the input of every segment and recomputes the segment in the backward pass."""

    name = "checkpointed"
    modes: ClassVar[tuple[MemoryMode, ...]] = ("checkpoint",)

    def __init__(self, steps: Sequence[Step], memory: Memory):
        self.steps, self.memory = steps, memory

    @classmethod
    def why_not(cls, steps: Sequence[Step], memory: Memory) -> str:
        """Reason why these steps do not run so, or an empty string."""
        if memory.mode not in cls.modes:
            return f"the memory mode is {memory.mode!r} (flows.memory.set_memory)"
        if not torch.is_grad_enabled():
            return "gradients are not recorded"
        if transforms_are_active():
            return "a transform of torch.func is active"
        return "" if any(step.tensors() for step in steps) else "no step has parameters"

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        total = zero_log_det(x)
        for segment in segments(self.steps):
            x, log_det = checkpoint(
                Plain(segment).forward,
                x,
                context,
                use_reentrant=False,
                preserve_rng_state=False,
                context_fn=_first_and_again,
            )
            total = total + log_det
        return x, total

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return Plain(self.steps).inverse(z, context)


class Reversible(Checkpointed):
    """Keeps the output, and anchors if asked, and reconstructs the rest by inversion in the backward pass."""

    name = "reversible"
    modes = ("reversible", "anchored")

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        global _uncompiled
        # Not a decorator: `disable` imports the compiler, which would add a second to every start.
        if _uncompiled is None:
            _uncompiled = torch.compiler.disable(_as_one_node)
        return _uncompiled(self.steps, self.memory, x, context)


def segments(steps: Sequence[Step]) -> list[list[Step]]:
    """Group the steps so that each group ends with a map that has parameters, as defined by `Memory`."""
    groups: list[list[Step]] = [[]]
    for step in steps:
        groups[-1].append(step)
        if isinstance(step, torch.nn.Module) and step.tensors():
            groups.append([])
    return groups if groups[-1] else groups[:-1]


def reconstruction_error(steps: Sequence[Step], memory: Memory, x: Tensor, context: Tensor | None) -> Tensor:
    """Largest error of the activations that a backward pass would reconstruct from z, a scalar.

    Errors are relative to the largest true activation of the step, at least 1. In mode `anchored`, the
    reconstruction restarts at every anchor.
    """
    groups, activations = segments(steps), [x]
    for segment in groups:
        activations.append(Plain(segment).forward(activations[-1], context)[0])
    worst, z = zero_log_det(x).amax(), activations[-1]
    for number in reversed(range(len(groups))):
        z, _ = Plain(groups[number]).inverse(z, context)
        true = activations[number]
        worst = torch.maximum(worst, (z - true).abs().amax() / true.abs().amax().clamp(min=1))
        if memory.mode == "anchored" and number % memory.every == 0:
            z = true
    return worst


def _first_and_again() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    return nullcontext(), recomputing()


# The autograd function ----------------------------------------------------------------------------

_uncompiled: Callable[[Sequence[Step], Memory, Tensor, Tensor | None], Mapped] | None = None
"""`_as_one_node` excluded from compilation, created by the first call."""


def _as_one_node(steps: Sequence[Step], memory: Memory, x: Tensor, context: Tensor | None) -> Mapped:
    tensors = {id(tensor): tensor for step in steps for tensor in step.tensors()}
    return _Reversible.apply(steps, memory, x, context, *tensors.values())


class _Reversible(torch.autograd.Function):
    """Steps as one node of the autograd graph, as described in the module docstring."""

    @staticmethod
    def forward(
        ctx: Any,
        steps: Sequence[Step],
        memory: Memory,
        x: Tensor,
        context: Tensor | None,
        *tensors: Tensor,
    ) -> Mapped:
        anchors, total, place = {}, zero_log_det(x), 0
        for number, segment in enumerate(segments(steps)):
            if memory.keeps_input(number):
                anchors[place - 1] = x
            x, log_det = Plain(segment).forward(x, context)
            total += log_det
            place += len(segment)
        ctx.steps, ctx.anchors, ctx.keys = steps, list(anchors), [id(tensor) for tensor in tensors]
        # The tensors are saved so that autograd checks that they were not modified in between.
        ctx.save_for_backward(x, context, *anchors.values(), *tensors)
        ctx.device_type = x.device.type
        ctx.autocast = torch.is_autocast_enabled(ctx.device_type), torch.get_autocast_dtype(ctx.device_type)
        return x, total

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(NO_SECOND_DERIVATIVE)
        z, context, *rest = ctx.saved_tensors
        anchors = dict(zip(ctx.anchors, rest, strict=False))
        grads: dict[int, Tensor] = {}
        grad_context = None
        enabled, dtype = ctx.autocast
        with torch.autocast(ctx.device_type, dtype, enabled):
            for place in reversed(range(len(ctx.steps))):
                step = ctx.steps[place]
                z = anchors.get(place, z)
                pulled = step.pull_back(z, context, grad_z, grad_log_det)
                for tensor, grad in zip(step.tensors(), pulled.grads, strict=True):
                    _accumulate(grads, id(tensor), grad)
                if pulled.grad_context is not None:
                    former = grad_context
                    grad_context = pulled.grad_context if former is None else former + pulled.grad_context
                z, grad_z = pulled.x, pulled.grad_x
        return None, None, grad_z, grad_context, *map(grads.get, ctx.keys)


def _accumulate(grads: dict[int, Tensor], key: int, grad: Tensor | None) -> None:
    if grad is not None:
        grads[key] = grads[key] + grad if key in grads else grad
