"""Inversion by tuning the generator itself to one image (PTI, Roich et al. 2021, arXiv 2106.05744)."""

import copy

import torch
from torch import Tensor

from flows import images as pixels
from flows.inversion.base import Inversion, Inverter, final_losses, nothing_to_add, now, reconstruct
from flows.inversion.distance import Distance
from flows.models.base import LatentModel


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
        missing = nothing_to_add(model) or self.pivot.why_not(model)
        if missing:
            return missing
        if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
            return "a scripted module cannot be copied and tuned"
        return "" if next(model.parameters(), None) is not None else "it has no weights that can be tuned"

    def invert(
        self, model: LatentModel, images: Tensor, generator: torch.Generator | None = None
    ) -> Inversion:
        self.check(model, images)
        found = self.pivot.invert(model, images, generator)
        code = found.code.to(model.dtype).to(model.device)
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        weights, back, traces, seconds = [], [], [], found.seconds
        for i in range(len(images)):
            noise, begun = [each[i : i + 1] for each in found.noise], now(model)
            tuned, trace = self._tune(model, code[i : i + 1], noise, target[i : i + 1], found.space)
            seconds += now(model) - begun
            weights.append(changed_weights(model, tuned))
            back.append(reconstruct(tuned, code[i : i + 1], found.space, noise))
            traces.append(trace)
        trail = torch.stack(traces, 1)
        return Inversion(
            f"{self.name}, {self.steps} steps after {found.method}", found.space, code, found.noise,
            torch.cat(back), seconds, found.steps + self.steps,
            final_losses(trail), code.unsqueeze(0), trail.unsqueeze(1), weights=weights,
        )  # fmt: skip

    def _tune(
        self, model: LatentModel, code: Tensor, noise: list[Tensor], target: Tensor, space: str
    ) -> tuple[LatentModel, Tensor]:
        """A copy of the model with other weights, and the loss of every step."""
        tuned = copy.deepcopy(model).requires_grad_(True)
        parameters, trace = list(tuned.parameters()), []
        adam = torch.optim.Adam(parameters, self.lr)
        for _ in range(self.steps):
            image = tuned.decode_with_noise(code, noise, space)
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
