"""Composition of bijections."""

from collections.abc import Iterator, Sequence
from typing import cast

from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped, Shape
from flows.bijections.channels import ChannelMap
from flows.bijections.execution.folding import fold
from flows.bijections.execution.plan import Plan, make_plan
from flows.bijections.execution.reversal import reconstruction_error
from flows.core.numerics import zero_log_det
from flows.core.torch_internals import any_hooked
from flows.memory import PLAIN, Memory

__all__ = ["Chain", "Tap"]


class Tap(nn.Identity):
    """Identity module between two steps of a chain, called in both directions.

    A forward hook on a step does not run in generation, because generation calls `.inverse`. A hook on a tap
    runs in both directions: it gets the hidden state and may return a replacement.
    """


class Chain(Bijection):
    """Composition of bijections, with a `Tap` between every two steps.

    `one_by_one` is its definition. A plan (`execution.plan`) decides how the steps run: those of a nested
    chain as if they belonged to the outer one, adjacent channel maps folded into one, and several steps fused
    where that is faster. If this would bypass a hook, the steps are run one at a time.

    Attributes:
        memory: Memory mode, set by `flows.memory.set_memory`. The mode of an outer chain applies to the
            chains nested in it.
    """

    memory: Memory = PLAIN

    def __init__(self, *steps: Bijection):
        super().__init__()
        self.steps = cast(Sequence[Bijection], nn.ModuleList(steps))
        self.taps = nn.ModuleList(Tap() for _ in steps[1:])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return self.plan(x).forward(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return self.plan(z).inverse(z, context)

    def one_by_one(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        """Apply all steps and taps as modules: the definition of `forward`, which every executor equals."""
        log_det = zero_log_det(x)
        for i, step in enumerate(self.steps):
            x = self.taps[i - 1](x) if i else x
            x, step_log_det = step(x, context)
            log_det = log_det + step_log_det
        return x, log_det

    def one_by_one_inversely(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Invert all steps, from the last to the first: the definition of `inverse`."""
        log_det = zero_log_det(z)
        for i in reversed(range(len(self.steps))):
            z, step_log_det = self.steps[i].inverse(z, context)
            log_det = log_det + step_log_det
            z = self.taps[i - 1](z) if i else z
        return z, log_det

    # Execution ------------------------------------------------------------------------------------

    def plan(self, like: Tensor) -> Plan:
        """Plan of the executors for inputs like this one, in either direction."""
        return make_plan(self, like)

    def explain(self, like: Tensor) -> str:
        """Which executors run the steps for inputs like this one, and why the others do not."""
        return self.plan(like).explain()

    def flat(self) -> Iterator[Bijection]:
        """Steps, with those of nested chains in their place."""
        for step in self.steps:
            if isinstance(step, Chain):
                yield from step.flat()
            else:
                yield step

    def bypasses_hooks(self) -> bool:
        """Whether a hook is registered on a module that folding and flattening would bypass."""
        inner = [step for step in self.steps if isinstance(step, (Chain, ChannelMap))]
        return any_hooked([*self.taps, *inner]) or any(
            step.bypasses_hooks() for step in inner if isinstance(step, Chain)
        )

    def reconstruction_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Error of the activations rebuilt for this input, as defined by `reversal.reconstruction_error`."""
        return reconstruction_error(fold(list(self.flat()))[0], self.memory, x, context)

    # Shapes ---------------------------------------------------------------------------------------

    def output_shape(self, shape: Shape) -> Shape:
        for step in self.steps:
            shape = step.output_shape(shape)
        return shape

    def input_shape(self, shape: Shape) -> Shape:
        for step in reversed(self.steps):
            shape = step.input_shape(shape)
        return shape

    @classmethod
    def examples(cls) -> dict[str, Example]:
        from flows.bijections.permutation import Reverse
        from flows.bijections.scaling import DiagonalScaling

        steps = (DiagonalScaling(6), Reverse(), DiagonalScaling(6))
        return {"three steps": Example(cls(*steps), (6,)), "empty": Example(cls(), (3,))}
