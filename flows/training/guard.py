"""Guard of the memory modes that rebuild activations: errors of activations and gradients by inversion."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from flows.core.numerics import to_double
from flows.data.base import Batch
from flows.memory import Memory, chains_of, memory_of, set_memory
from flows.metrics.likelihood import labels_if_conditional
from flows.models.base import LikelihoodModel

LARGEST_ERROR = 1e-2
"""Maximum error of a rebuilt activation, relative to the largest kept activation."""
SMALLEST_COSINE = 0.999
"""Minimum cosine between the gradient by inversion and the gradient by autograd."""
IMAGES = 4


@dataclass(frozen=True)
class GuardReport:
    """Measurements of the guard, the worst of all ranks.

    Attributes:
        reconstruction: Largest |rebuilt − kept| of the activations of any chain for one image, relative to
            the largest kept activation (at least 1).
        cosine: Cosine of the angle between the two gradients of a few images.
    """

    reconstruction: float
    cosine: float

    @property
    def is_sound(self) -> bool:
        """Whether both values are within their limits; False for NaN."""
        return self.reconstruction <= LARGEST_ERROR and self.cosine >= SMALLEST_COSINE

    def scalars(self) -> dict[str, float]:
        """Values for the log."""
        return {"memory/reconstruction": self.reconstruction, "memory/gradient_cosine": self.cosine}


def measure(model: LikelihoodModel, batch: Batch, accelerator: Accelerator) -> GuardReport:
    """Compare rebuilt activations of one image, and gradients of a few images, on the bare model.

    Every rank must call this, with its own batch. Weights, their gradients and torch's generators stay
    unchanged.
    """
    few = batch.first(IMAGES).to(accelerator.device)
    worst = torch.stack([_reconstruction(model, few), -_cosine(model, few)]).nan_to_num(torch.inf)
    worst = accelerator.gather(worst.view(1, 2)).amax(0)
    return GuardReport(float(worst[0]), -float(worst[1]))


def _reconstruction(model: LikelihoodModel, batch: Batch) -> Tensor:
    """Largest relative error of any chain, for the first image."""
    errors = []

    def compare(chain: Any, inputs: tuple[Tensor, ...], output: object) -> None:
        errors.append(chain.reconstruction_error(*inputs))

    handles = [chain.register_forward_hook(compare) for chain in chains_of(model)]
    try:
        with torch.no_grad():
            _bits(model, batch.first(1))
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack(errors).amax()


def _cosine(model: LikelihoodModel, batch: Batch) -> Tensor:
    """Cosine between the gradients in the model's memory mode and in `plain`."""
    mode = memory_of(model)
    try:
        rebuilt = _gradient(model, batch)
        set_memory(model, "plain")
        kept = _gradient(model, batch)
    finally:
        set_memory(model, mode.mode, mode.every)
    return torch.dot(rebuilt, kept) / (rebuilt.norm() * kept.norm())


def _gradient(model: LikelihoodModel, batch: Batch) -> Tensor:
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    grads = torch.autograd.grad(_bits(model, batch), parameters, allow_unused=True)
    return torch.cat([to_double(grad).flatten() for grad in grads if grad is not None])


def _bits(model: LikelihoodModel, batch: Batch) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    labels = labels_if_conditional(model, batch)
    return -model(batch.images, labels, generator, batch.keys.tolist()).log_prob.mean()


def is_watched(memory: Memory) -> bool:
    """Whether gradients in this memory mode depend on the accuracy of an inverse."""
    return memory.mode in ("reversible", "anchored")
