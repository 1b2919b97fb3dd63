"""Inversion by fine-tuning the generator to each image (PTI, Roich et al. 2021, arXiv 2106.05744)."""

import copy
from collections.abc import Iterator, Mapping
from itertools import repeat
from typing import Literal

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat
from flows.core.checks import check_choice
from flows.core.numerics import combine_seeds, seed_from
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
from flows.inversion.optimise import Optimise, extent
from flows.inversion.search import Search
from flows.metrics.perceptual import LPIPS
from flows.models.base import LatentModel
from flows.models.codes import Codes, LabelsLike, concatenate

__all__ = ["Tune"]

TOGETHER = 10
"""Number of nearby codes that the original generator decodes at a time."""
PIVOT_STEPS, STEPS, LOCALITY = 450, 350, 0.1
"""Numbers of steps on code and weights, and weight of the locality regularisation, in the paper."""
TRUNCATION = 0.5
"""Truncation of the codes that are drawn for the regularisation."""


class Tune(Inverter):
    """Pivotal tuning: a code by another inverter, then an optimisation of the generator's weights per image.

    The reconstruction depends on the tuned weights, which the record has to store: one generator per image.

    With locality regularisation (section 3.3), the tuned generator keeps the images of codes at a distance
    from the pivot w_p: every step draws a code w, and adds `locality` times the distance between the tuned
    and the original image of w_p + ρ(w − w_p)/|w − w_p|. The published code draws w with a truncation of ½
    and has ρ = 30 over 18 layers of w+, which is 7.1 in w; here ρ is a multiple of the root mean square
    distance of the space's codes from their mean, because the width of w differs between generators.

    Args:
        pivot: Inverter that finds the code (450 steps of `Optimise` in the paper).
        steps: Number of steps on the weights (350 in the paper).
        lr: Learning rate of Adam (3e-4 in the paper).
        distance: Distance to the image (LPIPS and the mean squared error with equal weights in the paper).
        locality: Weight of the locality regularisation (0.1 in the paper); 0 for none, the default of the
            published code.
        radius: ρ, in units of the root mean square distance of codes from their mean.
        stop: LPIPS at which the steps end (0.06 in the published code); used only if the perceptual network
            of `distance` is LPIPS.
    """

    name = "tune"
    short_names = {"tune": ("no-locality",)}

    def __init__(
        self,
        pivot: Inverter,
        steps: NonNegativeInt = STEPS,
        lr: PositiveFloat = 3e-4,
        distance: Distance | None = None,
        locality: NonNegativeFloat = LOCALITY,
        radius: PositiveFloat = 1.0,
        stop: NonNegativeFloat = 0.06,
    ):
        self.pivot, self.steps, self.lr, self.distance = pivot, steps, lr, distance or Distance()
        self.locality, self.radius, self.stop = locality, radius, stop

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: Search) -> "Tune":
        for word in words.values():
            check_choice(f"--inverters {name}", word, Literal["no-locality"])
        settings = search.settings
        pivot = Optimise(
            None,
            search.at_most(PIVOT_STEPS),
            settings.lr,
            distance=search.distance,
            noise=settings.noise,
            seconds=settings.seconds,
        )
        locality = 0.0 if words else LOCALITY
        return cls(pivot, search.at_most(STEPS), distance=search.distance, locality=locality)

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
        generator = torch.Generator().manual_seed(0) if generator is None else generator
        pivot = self.pivot.invert(model, images, generator, labels)
        seed, codes = int(seed_from(generator)), pivot.codes.to(model)
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        weights, reconstructions, traces, seconds = [], [], [], pivot.seconds
        for i in range(len(images)):
            noise, begun = [layer_noise[i : i + 1] for layer_noise in pivot.noise], now(model)
            near = self._nearby(model, codes[i], combine_seeds(seed, i))
            tuned, trace = self._tune(model, codes[i], near, noise, target[i : i + 1])
            seconds += now(model) - begun
            weights.append(changed_weights(model, tuned))
            reconstructions.append(reconstruct(tuned, codes[i], noise))
            traces.append(trace)
        steps = max(map(len, traces))
        traced = torch.stack([with_length(trace, steps) for trace in traces], 1)
        regularised = f", locality {self.locality:g}" if self.locality else ""
        return Inversion(
            method=f"{self.name}, {steps} steps{regularised}, after {pivot.method}",
            codes=codes,
            noise=pivot.noise,
            reconstruction=torch.cat(reconstructions),
            seconds=seconds,
            steps=pivot.steps + steps,
            losses=final_losses(traced),
            all_codes=codes.values.unsqueeze(0),
            trace=traced.unsqueeze(1),
            weights=weights,
        )

    @torch.no_grad()
    def _nearby(self, model: LatentModel, pivot: Codes, seed: int) -> Codes | None:
        """Return a code for the regularisation of each step, at the radius from the pivot (1, D)."""
        if not self.locality or not self.steps:
            return None
        mean, std = extent(model, pivot.space)
        drawn = model.sample_codes(self.steps, pivot.space, torch.Generator().manual_seed(seed))
        towards = mean + TRUNCATION * (drawn.to(mean) - mean) - pivot.values
        length = self.radius * std.square().sum().sqrt()
        values = pivot.values + length * towards / towards.norm(dim=1, keepdim=True)
        return Codes(values, pivot.space, None if pivot.labels is None else pivot.labels.expand(self.steps))

    def _tune(
        self, model: LatentModel, codes: Codes, near: Codes | None, noise: list[Tensor], target: Tensor
    ) -> tuple[LatentModel, Tensor]:
        """Return a tuned copy of the model and the loss of every step."""
        tuned = copy.deepcopy(model).requires_grad_(True)
        parameters, trace = list(tuned.parameters()), []
        adam = torch.optim.Adam(parameters, self.lr)
        weights = torch.tensor([1.0] if near is None else [1.0, self.locality]).to(target)
        for batch, targets in self._batches(model, codes, near, noise, target):
            image = decode_with(tuned, batch, [each.expand(len(batch), -1, -1, -1) for each in noise])
            rest, perceptual = self.distance.parts(model, image, targets)
            if isinstance(self.distance.network, LPIPS) and float(perceptual[0].detach()) <= self.stop:
                break
            loss = (weights * (rest + self.distance.perceptual * perceptual)).sum()
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            adam.step()
            trace.append(loss.detach())
        return tuned.requires_grad_(False), torch.stack(trace) if trace else torch.empty(0)

    def _batches(
        self, model: LatentModel, codes: Codes, near: Codes | None, noise: list[Tensor], target: Tensor
    ) -> Iterator[tuple[Codes, Tensor]]:
        """Codes and target images of every step: the pivot's and, if there is one, that of a nearby code."""
        if near is None:
            yield from repeat((codes, target), self.steps)
            return
        for part in near.split(TOGETHER):
            with torch.no_grad():
                kept = decode_with(model, part, [each.expand(len(part), -1, -1, -1) for each in noise])
            for i in range(len(part)):
                yield concatenate([codes, part[i]]), torch.cat([target, kept[i : i + 1]])


def with_length(trace: Tensor, steps: int) -> Tensor:
    """Extend a trace of losses (fewer steps,) by its last loss."""
    last = trace[-1:] if len(trace) else torch.zeros(1)
    return torch.cat([trace, last.expand(steps - len(trace))])


def changed_weights(model: LatentModel, tuned: LatentModel) -> dict[str, Tensor]:
    """Return the tuned weights that differ from the model's, by name."""
    before, after = model.state_dict(), tuned.state_dict()
    return {
        name: value.cpu().clone() for name, value in after.items() if not torch.equal(value, before[name])
    }
