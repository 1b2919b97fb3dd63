"""The plan of a chain: which executor runs which of its steps, and why the others do not.

A plan follows from the input (device, dtype, shape), the hooks, the memory mode and whether gradients are
recorded. These are the executors:

    one by one     every step and tap as a module, the definition; where folding would bypass a hook
    fused rows     channel maps and couplings as products of matrices of pixels, on CPUs
    reversible     activations are reconstructed by inversion in the backward pass, in two memory modes
    checkpointed   activations are recomputed in the backward pass, in one memory mode
    plain          folded steps one after the other
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from flows.bijections.base import Mapped
from flows.bijections.execution import rows
from flows.bijections.execution.executor import Executor, Plain
from flows.bijections.execution.folding import Folded, Step, fold
from flows.bijections.execution.reversal import Checkpointed, Reversible
from flows.core.context import set_within
from flows.core.numerics import zero_log_det
from flows.core.once import once, parts
from flows.core.torch_internals import any_hooked
from flows.memory import Memory

if TYPE_CHECKING:
    from flows.bijections.chain import Chain


class OneByOne(Executor):
    """Steps and taps of a chain as modules, so that hooks on them run: `Chain.one_by_one`."""

    name = "one by one"

    def __init__(self, chain: "Chain"):
        self.chain, self.steps = chain, chain.steps

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return self.chain.one_by_one(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return self.chain.one_by_one_inversely(z, context)


@dataclass(frozen=True)
class Plan:
    """Executors of adjacent steps of one chain.

    Attributes:
        executors: Executors in the order of the forward direction.
        folded_log_det: Log-determinant of all folded channel maps together, a scalar.
        why_not: Reason why an executor runs none of the steps, by its name.
    """

    executors: Sequence[Executor]
    folded_log_det: Tensor
    why_not: Mapping[str, str]

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        total = zero_log_det(x)
        for executor in self.executors:
            x, log_det = executor.forward(x, context)
            total = total + log_det
        return x, total + self.folded_log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        total = zero_log_det(z)
        for executor in reversed(self.executors):
            z, log_det = executor.inverse(z, context)
            total = total + log_det
        return z, total - self.folded_log_det

    def explain(self) -> str:
        """One line for each executor, and one for each executor that runs nothing, with the reason."""
        runs = [
            f"{executor.label}: {kinds_of(executor.steps)}" for executor in self.executors if executor.steps
        ]
        return "\n".join([*runs, *(f"not {name}: {reason}" for name, reason in self.why_not.items())])


def make_plan(chain: "Chain", like: Tensor) -> Plan:
    """Decide how `chain` runs for inputs like this one, in either direction.

    Within `flows.prepared`, the plan is made once for each shape.
    """
    no_rows = rows.why_not(like) or ("a module has a hook" if any_hooked(parts(chain)[1:]) else "")
    if no_rows and chain.bypasses_hooks():
        others = (Reversible, Checkpointed, Plain)
        reasons = {rows.Rows.name: no_rows, **dict.fromkeys((kind.name for kind in others), BYPASSED)}
        plan = Plan([OneByOne(chain)], like.new_zeros(()), reasons)
    else:
        size = (*like.shape[1:], not no_rows)
        plan = once(chain, like, size, lambda: folded_plan(chain, like, no_rows))
    if not torch.compiler.is_compiling() and (record := _record.get()) is not None:
        record.append((chain, plan))
    return plan


def folded_plan(chain: "Chain", like: Tensor, no_rows: str) -> Plan:
    """Plan in which adjacent channel maps are folded; `no_rows` is the reason why no step runs in rows."""
    steps, foldings = fold(list(chain.flat()))
    log_det = sum((folding.log_det(like) for folding in foldings), start=like.new_zeros(()))
    stretches = [steps] if no_rows else rows.grouped(steps, chain.memory)
    executors = [
        stretch if isinstance(stretch, rows.Rows) else with_memory(stretch, chain.memory)
        for stretch in stretches
    ]
    reasons = {
        OneByOne.name: "no hook would be bypassed",
        rows.Rows.name: no_rows or "no channel map is followed by a coupling that can run in rows",
        **{kind.name: kind.why_not(steps, chain.memory) or IN_ROWS for kind in (Reversible, Checkpointed)},
        Plain.name: f"the memory mode is {chain.memory.mode!r}" if no_rows else IN_ROWS,
    }
    names = {executor.name for executor in executors}
    return Plan(executors, log_det, {name: why for name, why in reasons.items() if name not in names})


def with_memory(steps: Sequence[Step], memory: Memory) -> Executor:
    """Executor of a stretch of steps in a memory mode."""
    for kind in (Reversible, Checkpointed):
        if not kind.why_not(steps, memory):
            return kind(steps, memory)
    return Plain(steps)


BYPASSED, IN_ROWS = "folding would bypass a hook", "all other steps run in rows"


def kinds_of(steps: Sequence[Step]) -> str:
    """Number of steps by class: `32 folded channel maps, 32 AffineCoupling`."""
    names = Counter(
        "folded channel maps" if isinstance(step, Folded) else type(step).__name__ for step in steps
    )
    return ", ".join(f"{count} {name}" for name, count in names.items())


# Record ---------------------------------------------------------------------------------------------

_record: ContextVar[list[tuple["Chain", Plan]] | None] = ContextVar("record", default=None)


@contextmanager
def recorded_plans() -> Iterator[list[tuple["Chain", Plan]]]:
    """Collect (chain, plan) of every chain that runs within the block."""
    record: list[tuple[Chain, Plan]] = []
    with set_within(_record, record):
        yield record
