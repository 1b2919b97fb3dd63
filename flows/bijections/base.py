"""Interface of every bijection."""

from abc import ABC, abstractmethod
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["Bijection", "Example", "Inverse"]

Shape = tuple[int, ...]
Mapped = tuple[Tensor, Tensor]
"""(value, log_det), the return type of both directions of a bijection."""


class PulledBack(NamedTuple):
    """Result of `Bijection.pull_back`, one step of reversible backpropagation; no tensor has a graph.

    Attributes:
        x: Input, reconstructed from the output.
        grad_x: Gradient of the input.
        grad_context: Gradient of a real-valued context, or None.
        grads: Gradients of `Bijection.tensors()`, in that order; None for a tensor that was not used.
    """

    x: Tensor
    grad_x: Tensor
    grad_context: Tensor | None
    grads: list[Tensor | None]


class Bijection(nn.Module, ABC):
    """Invertible map between batches of data `x` and latents `z`.

    Both directions return `(value, log_det)`. `log_det` has shape (batch,) and is the natural logarithm of
    |det| of the Jacobian of the map *just applied*, so the log-dets of the two directions sum to zero.

    To add a bijection:
        - create a file in this folder and implement `forward` and `inverse` next to each other;
        - make both directions differentiable and deterministic; they leave their input unmodified and do not
          depend on train or eval mode; permutations, masks, signs and initialisation flags are buffers;
        - override `output_shape` and `input_shape` if the shape changes;
        - implement `examples` with one or more small instances, which `flows.testing` checks.

    Args of both directions:
        x, z: (batch, ...), floating point.
        context: Conditioning input, which compositions pass on unchanged: labels (batch,) or an image-shaped
            tensor. Unconditional maps ignore it.

    Attributes:
        constant_log_det: Whether the log-determinant is independent of the input (permutations, ActNorm).
        uses_batch_statistics: Whether the forward direction, in training mode, normalises by the batch and
            updates running statistics (RealNVP's batch norm). Only such maps may depend on the mode.
    """

    constant_log_det: ClassVar[bool] = False
    uses_batch_statistics: ClassVar[bool] = False

    @abstractmethod
    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        """Map data to latent."""

    @abstractmethod
    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        """Map latent to data."""

    def output_shape(self, shape: Shape) -> Shape:
        """Shape of one example of `z`, given that of `x`; raises ValueError if it does not fit."""
        return shape

    def input_shape(self, shape: Shape) -> Shape:
        """Shape of one example of `x`, given that of `z`."""
        return shape

    def tensors(self) -> list[Tensor]:
        """Parameters that require gradients, in the order of `parameters()`."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def pull_back(
        self, z: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
    ) -> PulledBack:
        """Reconstruct x from z = forward(x) and backpropagate, for the memory mode `reversible`.

        The default inverts, then differentiates a second forward pass with autograd. Maps that can do both
        with one evaluation of their network override it.

        Args:
            z: Output, without a graph.
            context: Context given to `forward`.
            grad_z: Gradient of the output.
            grad_log_det: Gradient of the log-determinant, (batch,).
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
        """Small instances by name, each with its input shape, which `flows.testing` checks."""
        raise TypeError(
            f"{cls.__name__} has no examples: implement the classmethod `examples`, so that "
            "flows.testing can check it"
        )


class Example:
    """Small bijection to be checked, with the distribution of its inputs.

    Args:
        bijection: Instance; it is put into eval mode.
        shape: Shape of one input, without the batch axis.
        interval: (low, high) of the uniformly distributed inputs, for maps that are defined on an interval.
        num_classes: Number of classes; if positive, the context is labels in [0, num_classes).
        context_shape: Shape of one example of a real-valued context.
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
    """Inverse of a bijection, with `forward` and `inverse` exchanged."""

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
    """Detach a real-valued context as the leaf of a new graph; labels and None are returned unchanged."""
    if context is None or not context.is_floating_point():
        return context
    return context.detach().requires_grad_()


def pull(
    results: list[tuple[Tensor, Tensor]], to: list[Tensor | None], create_graph: bool = False
) -> list[Tensor | None]:
    """Compute gradients with autograd from the gradients of the results; None for unused tensors.

    Args:
        results: Pairs (value, gradient of the value); values without a graph are skipped.
        to: Tensors whose gradients are computed; None and tensors that require no gradient get None.
        create_graph: Whether the gradients get a graph of their own.
    """
    connected = [(value, grad) for value, grad in results if value.requires_grad]
    asked = [tensor for tensor in to if tensor is not None and tensor.requires_grad]
    if not connected or not asked:
        return [None] * len(to)
    values, given = zip(*connected, strict=True)
    grads = iter(torch.autograd.grad(values, asked, given, create_graph=create_graph, allow_unused=True))
    return [next(grads) if tensor is not None and tensor.requires_grad else None for tensor in to]
