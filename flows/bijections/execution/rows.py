"""Fused CPU execution of channel maps and couplings, with pixels as the rows of a matrix.

The steps of a level, each a channel map and a coupling, become one node of the autograd graph. Activations
between steps are a matrix (P, C), P = batch·H·W. A channel map is one matrix product; a coupling changes some
of the columns in place, and its network is computed in rows too (`RowNetworks`). The memory mode determines
what is kept for the backward pass: the input and activations of every step (`plain`), every input
(`checkpoint`), every M-th input (`anchored`), or the output alone (`reversible`). The rest is recomputed or
reconstructed by inversion (RevNet, Gomez et al. 2017, arXiv 1707.04585, with the log-determinant as a second
output).
"""

from collections.abc import Hashable, Sequence
from itertools import groupby
from typing import cast

import torch
from torch import Tensor

from flows.bijections.base import Mapped
from flows.bijections.coupling import AdditiveCoupling, AffineCoupling, Coupling
from flows.bijections.execution.coupling_rows import (
    added,
    per_example,
    terms_of,
    to_images,
    to_rows,
    workspace_for,
)
from flows.bijections.execution.executor import Executor, Plain
from flows.bijections.execution.folding import Folded, Step
from flows.bijections.execution.row_networks import Parameters, RowNetworks, network_of, walk
from flows.bijections.execution.rows_graph import in_graph
from flows.bijections.partition import Halves
from flows.core.numerics import full_precision
from flows.core.torch_internals import forward_mode_is_active, transforms_are_active
from flows.memory import Memory

# Which steps --------------------------------------------------------------------------------------


def why_not(x: Tensor) -> str:
    """Reason why inputs like x cannot be computed in rows, or an empty string."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return "the model is being compiled or traced"
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}"
    if x.dim() != 4 or not len(x) or x.dtype not in (torch.float32, torch.float64):
        return f"the input is {x.dtype} of shape {tuple(x.shape)}, not a batch of images in fp32 or fp64"
    if transforms_are_active() or forward_mode_is_active():
        return "a transform of torch.func or forward-mode differentiation is active"
    if torch.is_autocast_enabled("cpu"):
        return "autocast is active"
    return ""


def grouped(steps: Sequence[Step], memory: Memory) -> "list[Rows | list[Step]]":
    """Divide steps into `Rows`, channel maps and couplings of one kind, and stretches of other steps.

    A `Rows` calls no submodule of a coupling, so the caller ensures that none of them has a hook.
    """
    units: list[tuple[Hashable, tuple[Step, ...]]] = []
    waiting = list(reversed(steps))
    while waiting:
        step = waiting.pop()
        kind = _kind(step, waiting[-1]) if waiting else None
        units.append((kind, (step,) if kind is None else (step, waiting.pop())))
    result: list[Rows | list[Step]] = []
    for kind, group in groupby(units, key=lambda unit: unit[0]):
        members = [unit for _, unit in group]
        if kind is None:
            result.append([step for unit in members for step in unit])
        else:
            result.append(Rows(cast("list[tuple[Folded, Coupling]]", members), memory))
    return result


def _kind(step: Step, following: Step) -> Hashable | None:
    """Key shared by pairs of steps that can be in the same `Rows`; None for pairs that cannot be in one."""
    if not isinstance(step, Folded) or type(following) not in (Coupling, AffineCoupling, AdditiveCoupling):
        return None
    coupling = cast(Coupling, following)
    if type(coupling.partition) is not Halves or not hasattr(coupling.network, "row_kind"):
        return None
    if coupling.scale is not None and not coupling.scale.has_slope:
        return None
    network = network_of(coupling).row_kind()
    return network and (id(step.folding), coupling.form, coupling.partition.keep_first, network)


# One run of steps ---------------------------------------------------------------------------------


class Rows(Executor):
    """n pairs of a folded channel map and a coupling of one kind."""

    name = "fused rows"

    def __init__(self, pairs: Sequence[tuple[Folded, Coupling]], memory: Memory):
        self.steps = [step for pair in pairs for step in pair]
        self.memory = memory
        self.folding, self.start = pairs[0][0].folding, pairs[0][0].number
        self.couplings = [coupling for _, coupling in pairs]
        self._ready: dict[Hashable, list[tuple[Coupling, RowNetworks, int]]] = {}

    @property
    def label(self) -> str:
        return self.name if self.memory.mode == "plain" else f"{self.name}, {self.memory.mode}"

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        here = slice(self.start, self.start + len(self.couplings))
        weight, offset = self.folding.affine.weight[here], self.folding.affine.offset[here]
        if torch.is_grad_enabled():
            return in_graph(self.couplings, self.memory, x, weight, offset, self.parameters())
        rows, logs = to_rows(x), None
        with full_precision(x):
            for i, (coupling, networks, number) in enumerate(self._prepared(x)):
                rows = torch.addmm(offset[i], rows, weight[i].T)
                kept, changed = coupling.partition.split(rows)
                terms = terms_of(coupling, networks.run(number, kept, keep=False)[0])
                coupling.form.forward(changed, terms, out=changed)
                logs = added(logs, terms.log_scale)
        return to_images(rows, x), per_example(logs, x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Invert the steps, one at a time if gradients are recorded."""
        if torch.is_grad_enabled():
            return Plain(self.steps).inverse(z, context)
        inverses, offsets = (value[self.start :] for value in self.folding.inverted())
        rows, logs = to_rows(z).clone(), None
        with full_precision(z):
            for i, (coupling, networks, number) in reversed(list(enumerate(self._prepared(z)))):
                kept, changed = coupling.partition.split(rows)
                terms = terms_of(coupling, networks.run(number, kept, keep=False)[0])
                coupling.form.inverse(changed, terms, out=changed)
                logs = added(logs, terms.log_scale)
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
