"""Fused CPU execution of channel maps and couplings, with pixels as the rows of a matrix.

The steps of a level, each a channel map and a coupling, become one node of the autograd graph. Activations
between steps are a matrix (P, C), P = batch·H·W. A channel map is one matrix product; a coupling changes some
of the columns in place, and its network is computed in rows too (`RowNetworks`). The memory mode determines
what is kept for the backward pass: the input and activations of every step (`plain`), every input
(`checkpoint`), every M-th input (`anchored`), or the output alone (`reversible`). The rest is recomputed or
reconstructed by inversion (RevNet, Gomez et al. 2017, arXiv 1707.04585, with the log-determinant as a second
output).
"""

from collections.abc import Hashable, Iterable, Sequence
from itertools import groupby
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows.bijections.base import Mapped
from flows.bijections.coupling import AdditiveCoupling, AffineCoupling
from flows.bijections.coupling_rows import (
    added,
    couple,
    per_example,
    shift_and_log_scale,
    to_images,
    to_rows,
    uncouple,
    workspace_for,
)
from flows.bijections.folding import Folded, Step, run_backwards
from flows.bijections.partition import Halves
from flows.bijections.row_networks import Coupling, Parameters, RowNetworks, network_of, walk
from flows.bijections.rows_graph import in_graph
from flows.memory import PLAIN, Memory
from flows.numerics import full_precision

# Which steps --------------------------------------------------------------------------------------


def runs_in_rows(x: Tensor) -> bool:
    """Whether inputs like x can be computed in rows.

    They must be images on a CPU, outside autocast, torch.compile and torch.func.
    """
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and x.dim() == 4
        and x.dtype in (torch.float32, torch.float64)
        and len(x) > 0
        and not torch._C._are_functorch_transforms_active()
        and torch.autograd.forward_ad._current_level < 0
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
    )


def in_rows(steps: Sequence[Step]) -> list[Any]:
    """Replace every run of folded channel maps and couplings of one kind by a `Rows`.

    A `Rows` calls no submodule of a coupling, so the caller ensures that none of them has a hook.
    """
    units: list[tuple[Hashable, tuple[Step, ...]]] = []
    waiting = list(reversed(steps))
    while waiting:
        step = waiting.pop()
        kind = _kind(step, waiting[-1]) if waiting else None
        units.append((kind, (step,) if kind is None else (step, waiting.pop())))
    result: list[Any] = []
    for kind, group in groupby(units, key=lambda unit: unit[0]):
        members = [unit for _, unit in group]
        if kind is None:
            result += [step for unit in members for step in unit]
        else:
            result.append(Rows(cast("list[tuple[Folded, Coupling]]", members)))
    return result


def _kind(step: Step, following: Step) -> Hashable | None:
    """Key shared by pairs of steps that can be in the same `Rows`; None for pairs that cannot be in one."""
    if not isinstance(step, Folded) or type(following) not in (AffineCoupling, AdditiveCoupling):
        return None
    coupling = cast(Coupling, following)
    if type(coupling.partition) is not Halves or not hasattr(coupling.network, "row_kind"):
        return None
    if isinstance(coupling, AffineCoupling) and not coupling.scale.has_slope:
        return None
    network = network_of(coupling).row_kind()
    return network and (id(step.folding), type(coupling), coupling.partition.keep_first, network)


def any_hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether a hook is registered on one of these modules themselves."""
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )


# One run of steps ---------------------------------------------------------------------------------


class Rows:
    """Run of n steps, each a folded channel map and a coupling; returns the log-det of the couplings only."""

    def __init__(self, pairs: Sequence[tuple[Folded, Coupling]]):
        self.pairs = pairs
        self.folding, self.start = pairs[0][0].folding, pairs[0][0].number
        self.couplings = [coupling for _, coupling in pairs]
        self._ready: dict[Hashable, list[tuple[Coupling, RowNetworks, int]]] = {}

    def __call__(self, x: Tensor, context: Tensor | None = None, memory: Memory = PLAIN) -> Mapped:
        here = slice(self.start, self.start + len(self.couplings))
        weight, offset = self.folding.affine.weight[here], self.folding.affine.offset[here]
        if torch.is_grad_enabled():
            return in_graph(self.couplings, memory, x, weight, offset, self.parameters())
        rows, logs = to_rows(x), None
        with full_precision(x):
            for i, (coupling, networks, number) in enumerate(self._prepared(x)):
                rows = torch.addmm(offset[i], rows, weight[i].T)
                kept, changed = coupling.partition.split(rows)
                shift, log_scale = shift_and_log_scale(coupling, networks.run(number, kept, keep=False)[0])
                couple(coupling, changed, shift, log_scale)
                logs = added(logs, log_scale)
        return to_images(rows, x), per_example(logs, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Invert the steps, one at a time if gradients are recorded."""
        if torch.is_grad_enabled():
            return run_backwards([step for pair in self.pairs for step in pair], z, context)
        inverses, offsets = (value[self.start :] for value in self.folding.inverted())
        rows, logs = to_rows(z).clone(), None
        with full_precision(z):
            for i, (coupling, networks, number) in reversed(list(enumerate(self._prepared(z)))):
                kept, changed = coupling.partition.split(rows)
                shift, log_scale = shift_and_log_scale(coupling, networks.run(number, kept, keep=False)[0])
                uncouple(coupling, changed, shift, log_scale)
                logs = added(logs, log_scale)
                rows = torch.addmm(offsets[i], rows, inverses[i].T)
        return to_images(rows, z), -per_example(logs, z)

    def parameters(self) -> Parameters:
        """Parameters of all networks, one network after the other."""
        return [tensor for coupling in self.couplings for tensor in network_of(coupling).row_parameters()]

    def _prepared(self, x: Tensor) -> list[tuple[Coupling, RowNetworks, int]]:
        """Couplings with prepared networks, cached for each shape of x."""
        key = tuple(x.shape)
        if key not in self._ready:
            self._ready[key] = list(walk(self.couplings, self.parameters(), workspace_for(x)))
        return self._ready[key]
