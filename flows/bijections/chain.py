"""Composition of bijections."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped, Shape
from flows.bijections.folding import ChannelMap, Folding, Step, fold, run_backwards
from flows.bijections.reversal import reconstruction_error, run
from flows.bijections.rows import any_hooked, in_rows, runs_in_rows
from flows.memory import PLAIN, Memory
from flows.numerics import zero_log_det
from flows.once import once, parts

__all__ = ["Chain", "Tap"]


class Tap(nn.Identity):
    """Identity module between two steps of a chain, called in both directions.

    A forward hook on a step does not run in generation, because generation calls `.inverse`. A hook on a tap
    runs in both directions: it gets the hidden state and may return a replacement.
    """


class Chain(Bijection):
    """Composition of bijections, with a `Tap` between every two steps.

    The steps of a nested chain are run as if they belonged to the outer one, and adjacent channel maps are
    folded into one. If this would bypass a hook, the steps are run one at a time instead.

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
        rows = self._runs_in_rows(x)
        if not rows and self._has_hooks():
            return self._one_by_one(x, context)
        steps, folded_log_det = self._prepared(x, rows)
        z, log_det = run(steps, self.memory, x, context)
        return z, log_det + folded_log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        rows = self._runs_in_rows(z)
        if not rows and self._has_hooks():
            return self._one_by_one_inversely(z, context)
        steps, folded_log_det = self._prepared(z, rows)
        x, log_det = run_backwards(steps, z, context)
        return x, log_det - folded_log_det

    def folded(self) -> tuple[list[Step], list[Folding]]:
        """Steps as they are run without hooks, and the foldings among them."""
        return fold(list(self._flat()))

    def _runs_in_rows(self, x: Tensor) -> bool:
        """Whether couplings are computed in rows: on a CPU, if no submodule has a hook."""
        return runs_in_rows(x) and not any_hooked(parts(self)[1:])

    def _prepared(self, like: Tensor, rows: bool) -> tuple[list[Any], Tensor]:
        """Steps as they are run, and the log-det of all foldings together."""

        def compute() -> tuple[list[Any], Tensor]:
            steps, foldings = self.folded()
            log_det = sum((f.log_det(like) for f in foldings), start=like.new_zeros(()))
            return in_rows(steps) if rows else steps, log_det

        return once(self, like, (*like.shape[1:], rows), compute)

    def reconstruction_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """Error of the activations rebuilt for this input, as defined by `reversal.reconstruction_error`."""
        return reconstruction_error(self.folded()[0], self.memory, x, context)

    def _flat(self) -> Iterator[Bijection]:
        for step in self.steps:
            if isinstance(step, Chain):
                yield from step._flat()
            else:
                yield step

    def _has_hooks(self) -> bool:
        """Whether a hook is registered on a module that folding and flattening would bypass."""
        inner = [step for step in self.steps if isinstance(step, (Chain, ChannelMap))]
        return any_hooked([*self.taps, *inner]) or any(
            step._has_hooks() for step in inner if isinstance(step, Chain)
        )

    def _one_by_one(self, x: Tensor, context: Tensor | None) -> Mapped:
        log_det = zero_log_det(x)
        for i, step in enumerate(self.steps):
            x = self.taps[i - 1](x) if i else x
            x, step_log_det = step(x, context)
            log_det = log_det + step_log_det
        return x, log_det

    def _one_by_one_inversely(self, z: Tensor, context: Tensor | None) -> Mapped:
        log_det = zero_log_det(z)
        for i in reversed(range(len(self.steps))):
            z, step_log_det = self.steps[i].inverse(z, context)
            log_det = log_det + step_log_det
            z = self.taps[i - 1](z) if i else z
        return z, log_det

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
