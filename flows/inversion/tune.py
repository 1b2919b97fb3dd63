"""Inversion by tuning the generator itself to one image (PTI, Roich et al. 2021, arXiv 2106.05744)."""

import copy

import torch
from torch import Tensor

from flows import images as pixels
from flows.inversion.base import (
    NOTHING_TO_ADD,
    Inversion,
    Inverter,
    decode_with,
    final_losses,
    now,
    reconstruct,
)
from flows.inversion.distance import Distance
from flows.models.base import LatentModel
from flows.models.codes import Codes


class Tune(Inverter):
    """A pivot code by another inverter, then a few steps on the generator's weights, for every image alone.

    What comes back belongs to the tuned weights, which the record has to keep: one generator per image.

    Args:
        pivot: finds the code.
        steps: on the weights (350 in the paper).
        lr: of Adam (3e-4 in the paper).
        distance: to the image (LPIPS and the mean squared error with equal weights in the paper, which stops
            at an LPIPS of 0.06 and, for edits far away, holds the generator at other codes; neither is here).
    """

    name = "tune"

    def __init__(self, pivot: Inverter, steps: int = 350, lr: float = 3e-4, distance: Distance | None = None):
        self.pivot, self.steps, self.lr, self.distance = pivot, steps, lr, distance or Distance()

    def why_not(self, model: LatentModel) -> str:
        missing = NOTHING_TO_ADD if model.is_exact else self.pivot.why_not(model)
        if missing:
            return missing
        if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
            return "a scripted module cannot be copied and tuned"
        return "" if next(model.parameters(), None) is not None else "it has no weights that can be tuned"

    def space_of(self, model: LatentModel) -> str:
        return self.pivot.space_of(model)

    def invert(
        self,
        model: LatentModel,
        images: Tensor,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Inversion:
        self.check(model, images)
        pivot = self.pivot.invert(model, images, generator, labels)
        codes = pivot.codes.to(model)
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        weights, images_back, traces, seconds = [], [], [], pivot.seconds
        for i in range(len(images)):
            noise, begun = [each[i : i + 1] for each in pivot.noise], now(model)
            tuned, trace = self._tune(model, codes[i : i + 1], noise, target[i : i + 1])
            seconds += now(model) - begun
            weights.append(changed_weights(model, tuned))
            images_back.append(reconstruct(tuned, codes[i : i + 1], noise))
            traces.append(trace)
        trail = torch.stack(traces, 1)
        return Inversion(
            f"{self.name}, {self.steps} steps after {pivot.method}", codes, pivot.noise,
            torch.cat(images_back), seconds, pivot.steps + self.steps,
            final_losses(trail), codes.values.unsqueeze(0), trail.unsqueeze(1), weights=weights,
        )  # fmt: skip

    def _tune(
        self, model: LatentModel, codes: Codes, noise: list[Tensor], target: Tensor
    ) -> tuple[LatentModel, Tensor]:
        """A copy of the model with other weights, and the loss of every step."""
        tuned = copy.deepcopy(model).requires_grad_(True)
        parameters, trace = list(tuned.parameters()), []
        adam = torch.optim.Adam(parameters, self.lr)
        for _ in range(self.steps):
            image = decode_with(tuned, codes, noise)
            loss = self.distance(model, image, target).sum()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
            trace.append(loss.detach())
        return tuned.requires_grad_(False), torch.stack(trace) if trace else torch.empty(0)


def changed_weights(model: LatentModel, tuned: LatentModel) -> dict[str, Tensor]:
    """The tuned weights that differ from the model's, by name."""
    before, after = model.state_dict(), tuned.state_dict()
    return {
        name: value.cpu().clone() for name, value in after.items() if not torch.equal(value, before[name])
    }
