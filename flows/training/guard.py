"""The guard of memory modes that rebuild activations: what inversion does to them and to gradients."""

from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor

from flows.data.base import Batch
from flows.memory import Memory, chains_of, memory_of, set_memory
from flows.metrics.likelihood import labels_for
from flows.models.base import LikelihoodModel

LARGEST_ERROR = 1e-2
"""Of a rebuilt activation, relative to the largest of the kept ones."""
SMALLEST_COSINE = 0.999
"""Between the gradient by inversion and the one by autograd."""
IMAGES = 4


@dataclass(frozen=True)
class GuardReport:
    """What the guard saw, the worst of all ranks.

    Attributes:
        reconstruction: largest |rebuilt − kept| of any chain's activations for one image, relative to the
            largest of the kept ones (at least 1).
        cosine: of the angle between the two gradients of a few images.
    """

    reconstruction: float
    cosine: float

    @property
    def is_sound(self) -> bool:
        """Whether both are within their limits; NaN is not."""
        return self.reconstruction <= LARGEST_ERROR and self.cosine >= SMALLEST_COSINE

    def scalars(self) -> dict[str, float]:
        """For the log."""
        return {"memory/reconstruction": self.reconstruction, "memory/gradient_cosine": self.cosine}


def measure(model: LikelihoodModel, batch: Batch, accelerator: Accelerator) -> GuardReport:
    """Compare, on the bare model: rebuilt activations of one image, gradients of a few.

    Every rank calls this, on its own batch. The weights, their gradients and torch's generators stay as
    they were.
    """
    few = batch.first(IMAGES).to(accelerator.device)
    worst = torch.stack([_reconstruction(model, few), -_cosine(model, few)]).nan_to_num(torch.inf)
    worst = accelerator.gather(worst.view(1, 2)).amax(0)
    return GuardReport(float(worst[0]), -float(worst[1]))


def _reconstruction(model: LikelihoodModel, batch: Batch) -> Tensor:
    """The largest relative error of any chain, for the first image."""
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
    """Between the gradients of the model's mode and of `plain`."""
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
    return torch.cat([grad.double().flatten() for grad in grads if grad is not None])


def _bits(model: LikelihoodModel, batch: Batch) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    labels = labels_for(model, batch)
    return -model(batch.images, labels, generator, batch.keys.tolist()).log_prob.mean()


def is_watched(memory: Memory) -> bool:
    """Whether gradients in this mode depend on how exact an inverse is."""
    return memory.mode in ("reversible", "anchored")
