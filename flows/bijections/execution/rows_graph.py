"""`Rows` as one node of the autograd graph: the tensors kept for the backward pass, and that pass."""

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor

from flows.bijections.base import Mapped, pull
from flows.bijections.channels import invert_affine, mix_channels
from flows.bijections.coupling import Coupling
from flows.bijections.execution.coupling_rows import (
    added,
    per_example,
    pull_back,
    terms_of,
    to_images,
    to_rows,
    workspace_for,
)
from flows.bijections.execution.row_networks import TOGETHER, Parameters, networks_from, walk
from flows.bijections.forms import Terms
from flows.core.numerics import full_precision, zero_log_det
from flows.memory import NO_SECOND_DERIVATIVE, Memory


def in_graph(
    couplings: Sequence[Coupling],
    memory: Memory,
    x: Tensor,
    weight: Tensor,
    offset: Tensor,
    parameters: Parameters,
) -> Mapped:
    """Apply n steps x ↦ coupling(weight x + offset), with gradients.

    Args:
        couplings: Couplings of the n steps.
        memory: Memory mode.
        x: (batch, C, H, W).
        weight: (n, C, C), one matrix for each step.
        offset: (n, C), one vector for each step.
        parameters: Parameters of all networks, one network after the other; inputs of the node, so that
            DistributedDataParallel sees their gradients.
    """
    return cast(Mapped, _InGraph.apply(couplings, memory, x, weight, offset, *parameters))


class _InGraph(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        couplings: Sequence[Coupling],
        memory: Memory,
        x: Tensor,
        weight: Tensor,
        offset: Tensor,
        *parameters: Tensor | None,
    ) -> Mapped:
        keep = memory.mode == "plain"
        rows, logs = to_rows(x), None
        inputs: dict[int, Tensor] = {}
        activations: list[Tensor | None] = []
        with full_precision(x):
            for i, (coupling, networks, number) in enumerate(walk(couplings, parameters, workspace_for(x))):
                if i and memory.keeps_input(i):
                    inputs[i] = rows
                rows = torch.addmm(offset[i], rows, weight[i].T)
                kept, changed = coupling.partition.split(rows)
                output, active = networks.run(number, kept, keep)
                terms = terms_of(coupling, output)
                coupling.form.forward(changed, terms, out=changed)
                logs = added(logs, terms.log_scale)
                if keep:
                    kept_shift = terms.shift if coupling.form.pulls_back_by_shift else None
                    activations += [kept_shift, terms.log_scale, *active]
        z, log_det = to_images(rows, x), per_example(logs, x)
        ctx.couplings, ctx.anchored = couplings, list(inputs)
        ctx.counts = len(parameters), len(inputs)
        first = x if memory.keeps_input(0) else None
        # Parameters are saved so that autograd checks that they were not modified in between.
        ctx.save_for_backward(first, z, weight, offset, *parameters, *inputs.values(), *activations)
        return z, log_det

    @staticmethod
    def backward(ctx: Any, grad_z: Tensor, grad_log_det: Tensor) -> tuple[Tensor | None, ...]:
        first, z, weight, offset, *rest = ctx.saved_tensors
        n, (parameter_count, anchor_count) = len(ctx.couplings), ctx.counts
        parameters, rest = rest[:parameter_count], rest[parameter_count:]
        if torch.is_grad_enabled():  # a second derivative was requested
            return (
                None,
                None,
                *_differentiably(ctx.couplings, [first, weight, offset, *parameters], grad_z, grad_log_det),
            )
        inputs = dict(zip(ctx.anchored, rest[:anchor_count], strict=True))
        if first is not None:
            inputs[0] = to_rows(first)
        activations = rest[anchor_count:]
        count = len(activations) // n

        workspace = workspace_for(grad_z)
        pixels = workspace.height * workspace.width
        grad_logs = grad_log_det.repeat_interleave(pixels).unsqueeze(1)
        grad_weight, grad_offset = torch.empty_like(weight), torch.empty_like(offset)
        grads = _stacked_like(parameters, n)
        grad, z = to_rows(grad_z).clone(), to_rows(z)
        with full_precision(grad):
            inverted = None if len(inputs) == n else invert_affine(weight, offset)
            for start in reversed(range(0, n, TOGETHER)):
                stop = min(start + TOGETHER, n)
                networks = networks_from(ctx.couplings, start, parameters, workspace)
                for i in reversed(range(start, stop)):
                    coupling, number = ctx.couplings[i], i - start
                    kept, changed = coupling.partition.split(z)
                    if activations:
                        shift, log_scale, *active = activations[i * count : (i + 1) * count]
                        terms = Terms(cast(Tensor, shift), log_scale)
                    else:
                        output, active = networks.run(number, kept, keep=False)
                        terms = terms_of(coupling, output)
                    grad_kept, grad_changed = coupling.partition.split(grad)
                    grad_output = pull_back(coupling, changed, grad_changed, grad_logs, terms)
                    grad_kept += networks.pull_back(number, grad_output, kept, tuple(active))
                    if i in inputs:
                        z = inputs[i]
                    else:
                        assert inverted is not None
                        mixed = z.clone()
                        mixed_part = coupling.partition.split(mixed)[1]
                        coupling.form.inverse(mixed_part, terms, out=mixed_part)
                        z = torch.addmm(inverted[1][i], mixed, inverted[0][i].T)
                    torch.mm(grad.T, z, out=grad_weight[i])
                    torch.sum(grad, 0, out=grad_offset[i])
                    grad = grad @ weight[i]
                networks.gradients([None if stack is None else stack[start:stop] for stack in grads])
                del networks  # before the next ones are created
        grad_parameters = [None if stack is None else stack[i] for i in range(n) for stack in grads]
        return None, None, to_images(grad, grad_z), grad_weight, grad_offset, *grad_parameters


def _stacked_like(parameters: Parameters, n: int) -> Parameters:
    """Allocate stacked gradients of n networks' parameters, in the memory layout of the parameters.

    A few large blocks are allocated before the small, short-lived ones; otherwise the heap that a training
    step leaves behind grows with depth. Autograd would copy gradients in another memory layout.
    """
    return [
        None if p is None else torch.empty_strided((n, *p.shape), (p.numel(), *p.stride()), dtype=p.dtype)
        for p in parameters[: len(parameters) // n]
    ]


def _differentiably(
    couplings: Sequence[Coupling], inputs: Parameters, grad_z: Tensor, grad_log_det: Tensor
) -> tuple[Tensor | None, ...]:
    """Compute gradients that have a graph of their own, with torch operations."""
    x, weight, offset, *_ = inputs
    if x is None or weight is None or offset is None:
        raise RuntimeError(NO_SECOND_DERIVATIVE)
    value, total = x, zero_log_det(x)
    for i, coupling in enumerate(couplings):
        value, log_det = coupling(mix_channels(weight[i], value, offset[i]))
        total = total + log_det
    return tuple(pull([(value, grad_z), (total, grad_log_det)], list(inputs), create_graph=True))
