"""Inversion by fine-tuning the generator to each image (PTI, Roich et al. 2021, arXiv 2106.05744)."""

import copy

import torch
from torch import Tensor

from flows import images as pixels
from flows.bounds import NonNegativeInt, PositiveFloat
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
from flows.models.codes import Codes, LabelsLike

__all__ = ["Tune"]


class Tune(Inverter):
    """Pivotal tuning: a code by another inverter, then an optimisation of the generator's weights per image.

    The reconstruction depends on the tuned weights, which the record has to store: one generator per image.

    Args:
        pivot: Inverter that finds the code.
        steps: Number of steps on the weights (350 in the paper).
        lr: Learning rate of Adam (3e-4 in the paper).
        distance: Distance to the image. The paper has LPIPS and the mean squared error with equal weights,
            stops at an LPIPS of 0.06 and, for distant edits, regularises the generator at other codes; this
            class does neither.
    """

    name = "tune"

    def __init__(
        self,
        pivot: Inverter,
        steps: NonNegativeInt = 350,
        lr: PositiveFloat = 3e-4,
        distance: Distance | None = None,
    ):
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
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        images = self.check(model, images)
        pivot = self.pivot.invert(model, images, generator, labels)
        codes = pivot.codes.to(model)
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        weights, reconstructions, traces, seconds = [], [], [], pivot.seconds
        for i in range(len(images)):
            noise, begun = [layer_noise[i : i + 1] for layer_noise in pivot.noise], now(model)
            tuned, trace = self._tune(model, codes[i : i + 1], noise, target[i : i + 1])
            seconds += now(model) - begun
            weights.append(changed_weights(model, tuned))
            reconstructions.append(reconstruct(tuned, codes[i : i + 1], noise))
            traces.append(trace)
        traced = torch.stack(traces, 1)
        return Inversion(
            method=f"{self.name}, {self.steps} steps after {pivot.method}",
            codes=codes,
            noise=pivot.noise,
            reconstruction=torch.cat(reconstructions),
            seconds=seconds,
            steps=pivot.steps + self.steps,
            losses=final_losses(traced),
            all_codes=codes.values.unsqueeze(0),
            trace=traced.unsqueeze(1),
            weights=weights,
        )

    def _tune(
        self, model: LatentModel, codes: Codes, noise: list[Tensor], target: Tensor
    ) -> tuple[LatentModel, Tensor]:
        """Return a tuned copy of the model and the loss of every step."""
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
    """Return the tuned weights that differ from the model's, by name."""
    before, after = model.state_dict(), tuned.state_dict()
    return {
        name: value.cpu().clone() for name, value in after.items() if not torch.equal(value, before[name])
    }
