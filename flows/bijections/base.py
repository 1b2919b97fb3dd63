"""The contract of every invertible map."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

Shape = tuple[int, ...]
Mapped = tuple[Tensor, Tensor]
"""(value, log_det): what both directions of a bijection return."""


class PulledBack(NamedTuple):
    """One step of reversible backpropagation: what `Bijection.pull_back` returns.

    Attributes:
        x: the input, rebuilt from the output; without a graph, as all of these.
        grad_x: gradient of the input.
        grad_context: gradient of a real-valued context, or None.
        grads: gradient of each of `Bijection.tensors()`, None where nothing depends on it.
    """

    x: Tensor
    grad_x: Tensor
    grad_context: Tensor | None
    grads: list[Tensor | None]


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

    def tensors(self) -> list[Tensor]:
        """The parameters that gradients are asked for, in the order of `parameters()`."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def pull_back(
        self, z: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
    ) -> PulledBack:
        """Rebuild x from z = forward(x) and carry gradients back, for the memory mode `reversible`.

        This one inverts, and differentiates a second forward pass by autograd; maps that can do both with
        one evaluation of their network override it.

        Args:
            z: output, without a graph.
            context: as in `forward`.
            grad_z: gradient of the value.
            grad_log_det: gradient of the log-determinant, (batch,).
        """
        with torch.no_grad():
            x, _ = self.inverse(z, context)
        with torch.enable_grad():
            x = x.requires_grad_()
            context = as_leaf(context)
            value, log_det = self(x, context)
        results = [(value, grad_z), (log_det, grad_log_det)]
        grad_x, grad_context, *grads = pull(results, [x, context, *self.tensors()])
        assert grad_x is not None
        return PulledBack(x.detach(), grad_x, grad_context, grads)

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


def as_leaf(context: Tensor | None) -> Tensor | None:
    """A real-valued context as the leaf of a new graph; labels and None as they are."""
    if context is None or not context.is_floating_point():
        return context
    return context.detach().requires_grad_()


def pull(
    results: list[tuple[Tensor, Tensor]], to: list[Tensor | None], create_graph: bool = False
) -> list[Tensor | None]:
    """Gradients by autograd, given those of the results; None for what nothing depends on.

    Args:
        results: (value, its gradient); values without a graph are left out.
        to: what gradients are asked for; None and tensors that require none get None.
        create_graph: gradients with a graph of their own.
    """
    connected = [(value, grad) for value, grad in results if value.requires_grad]
    asked = [tensor for tensor in to if tensor is not None and tensor.requires_grad]
    if not connected or not asked:
        return [None] * len(to)
    values, given = zip(*connected, strict=True)
    found = iter(torch.autograd.grad(values, asked, given, create_graph=create_graph, allow_unused=True))
    return [next(found) if tensor is not None and tensor.requires_grad else None for tensor in to]
