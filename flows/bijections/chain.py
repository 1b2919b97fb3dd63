"""Composition: maps one after the other."""

from collections.abc import Iterator, Sequence
from typing import Any, cast

from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped, Shape
from flows.bijections.folding import ChannelMap, Folding, Step, fold, run_backwards
from flows.bijections.reversal import reconstruction_error, run
from flows.bijections.rows import has_hooks, in_rows, runs_in_rows
from flows.memory import PLAIN, Memory
from flows.numerics import zero_log_det
from flows.once import once, parts


class Tap(nn.Identity):
    """A named place between two maps, called in both directions.

    A forward hook on a layer never fires in generation, because generation calls `.inverse`. A hook on a
    tap does: it sees the hidden state, and what it returns replaces it.
    """


class Chain(Bijection):
    """Maps one after the other; a `Tap` stands at every boundary between two of them.

    A chain within a chain is run as if its steps stood in the outer one, and channel maps side by side are
    folded into one, unless somebody listens: a place with a hook is passed, one map at a time.

    Attributes:
        memory: what is kept for the backward pass; set by `flows.memory.set_memory`. An outer chain's
            holds for those within it.
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
        steps, of_folded = self._prepared(x, rows)
        z, log_det = run(steps, self.memory, x, context)
        return z, log_det + of_folded

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        rows = self._runs_in_rows(z)
        if not rows and self._has_hooks():
            return self._one_by_one_inversely(z, context)
        steps, of_folded = self._prepared(z, rows)
        x, log_det = run_backwards(steps, z, context)
        return x, log_det - of_folded

    def folded(self) -> tuple[list[Step], list[Folding]]:
        """The steps as they are run where nobody listens."""
        return fold(list(self._flat()))

    def _runs_in_rows(self, x: Tensor) -> bool:
        """Whether couplings are computed in rows: on a CPU, as long as nobody listens anywhere within."""
        return runs_in_rows(x) and not any(map(has_hooks, parts(self)[1:]))

    def _prepared(self, like: Tensor, rows: bool) -> tuple[list[Any], Tensor]:
        """The steps as they are run, and the log-det of all foldings together."""

        def work_out() -> tuple[list[Any], Tensor]:
            steps, foldings = self.folded()
            log_det = sum((f.log_det(like) for f in foldings), start=like.new_zeros(()))
            return in_rows(steps) if rows else steps, log_det

        return once(self, like, (*like.shape[1:], rows), work_out)

    def reconstruction_error(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        """How far off the rebuilt activations are for this input; see `reversal.reconstruction_error`."""
        return reconstruction_error(self.folded()[0], self.memory, x, context)

    def _flat(self) -> Iterator[Bijection]:
        for step in self.steps:
            if isinstance(step, Chain):
                yield from step._flat()
            else:
                yield step

    def _has_hooks(self) -> bool:
        """Whether a hook waits at a place that folding and flattening would pass over."""
        inner = [step for step in self.steps if isinstance(step, (Chain, ChannelMap))]
        return (
            any(map(has_hooks, self.taps))
            or any(map(has_hooks, inner))
            or any(step._has_hooks() for step in inner if isinstance(step, Chain))
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
