"""The contract of every invertible map, and the three ways to compose them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, cast

from torch import Tensor, nn

from flows.numerics import zero_log_det

Shape = tuple[int, ...]
Mapped = tuple[Tensor, Tensor]
"""(value, log_det): what both directions of a bijection return."""


class Bijection(nn.Module, ABC):
    """An invertible map on batches, from data `x` to latent `z`.

    Both directions return `(value, log_det)`. `log_det` has shape (batch,) and is the natural logarithm
    of |det| of the Jacobian of the map *just applied*, so the two directions' log-dets sum to zero.

    To add one:
        - put it in a new file of this folder and implement `forward` and `inverse` side by side;
        - both are differentiable, draw no random numbers, keep their input as it was, and know no mode
          flag; permutations, masks, signs and initialisation flags are buffers;
        - override `output_shape` and `input_shape` where the shape changes;
        - give `example` a small instance, or several; `flows.testing` then runs the laws over it.

    Args of both directions:
        x, z: (batch, ...), floating.
        context: what the map is conditioned on, handed on unchanged by compositions: labels (batch,) or
            an image-shaped tensor; maps that need none ignore it.

    Attributes:
        constant_log_det: the log-determinant does not depend on the input (permutations, ActNorm).
        uses_batch_statistics: the one exception to the rule on mode flags: in training mode the forward
            direction normalises by the batch and updates running statistics (RealNVP's batch norm).
    """

    constant_log_det: ClassVar[bool] = False
    uses_batch_statistics: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        """Data to latent."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Latent to data."""

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one example of `z` where one of `x` has `shape`. Raises ValueError if it does not fit."""
        return shape

    def input_shape(self, shape: Shape) -> Shape:
        """Shape of one example of `x` where one example of `z` has `shape`."""
        return shape

    @classmethod
    def examples(cls) -> "dict[str, Example]":
        """Small named instances, with an input shape each, on which the laws are run."""
        raise TypeError(
            f"{cls.__name__} has no examples: implement the classmethod `examples` so that the laws of "
            "flows.testing reach it"
        )


class Example:
    """A small bijection to check: `bijection` on inputs of `shape`, drawn as `low + (high − low)·u`.

    Args:
        bijection: the instance; in eval mode.
        shape: of one example, without the batch axis.
        interval: where inputs are drawn, uniformly; for maps defined on an interval only.
        num_classes: where positive, the context is labels in [0, num_classes).
        context_shape: shape of one example of a real-valued context.
    """

    def __init__(
        self,
        bijection: Bijection,
        shape: Shape,
        interval: tuple[float, float] = (-2.0, 2.0),
        num_classes: int = 0,
        context_shape: Shape | None = None,
    ):
        self.bijection = bijection.eval()
        self.shape = shape
        self.interval = interval
        self.num_classes = num_classes
        self.context_shape = context_shape


class Tap(nn.Identity):
    """A named place between two maps, called in both directions.

    A forward hook on a layer never fires in generation, because generation calls `.inverse`. A hook on a
    tap does: it sees the hidden state, and what it returns replaces it.
    """


class Chain(Bijection):
    """Maps one after the other; a `Tap` stands at every boundary between two of them."""

    def __init__(self, *steps: Bijection):
        super().__init__()
        self.steps = cast(Sequence[Bijection], nn.ModuleList(steps))
        self.taps = nn.ModuleList(Tap() for _ in steps[1:])

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        log_det = zero_log_det(x)
        for i, step in enumerate(self.steps):
            x = self.taps[i - 1](x) if i else x
            x, step_log_det = step(x, context)
            log_det = log_det + step_log_det
        return x, log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
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


class Inverse(Bijection):
    """The same map with its two directions exchanged, as an object."""

    def __init__(self, bijection: Bijection):
        super().__init__()
        self.bijection = bijection

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return self.bijection.inverse(x, context)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return self.bijection(z, context)

    def output_shape(self, shape: Shape) -> Shape:
        return self.bijection.input_shape(shape)

    def input_shape(self, shape: Shape) -> Shape:
        return self.bijection.output_shape(shape)

    @classmethod
    def examples(cls) -> dict[str, Example]:
        from flows.bijections.squeeze import Squeeze

        return {"unsqueeze": Example(cls(Squeeze()), (8, 2, 3))}
