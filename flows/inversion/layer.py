"""Inversion of the last layers of a generator (Bau et al. 2019, arXiv 1910.11626, section 3.2)."""

from collections.abc import Mapping

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.bounds import NonNegativeFloat, NonNegativeInt, PositiveFloat
from flows.core.hooks import hooked
from flows.core.numerics import frozen
from flows.inversion.base import (
    NOTHING_TO_ADD,
    Inversion,
    Inverter,
    decode_with,
    final_losses,
    now,
    reconstruct,
    replaced,
)
from flows.inversion.distance import Distance
from flows.inversion.optimise import Optimise
from flows.inversion.search import Search
from flows.models.base import LatentModel
from flows.models.codes import Codes, LabelsLike

__all__ = ["Layer"]

STEPS = 300
"""Default number of steps on the activations."""


class Layer(Inverter):
    """Inversion by another inverter, followed by an optimisation of a layer's activations.

    The activations need not belong to any code. The reconstruction therefore shows what the later layers
    can generate, and the residual what they cannot. The loss is that of `Optimise` plus
    weight·mean(((r − r₀)/σ)²), where r₀ are the activations of the code and σ is their std.

    Args:
        first: Inverter that finds the code.
        layer: Name of a layer in `model.layers()`; None selects the last of the outermost layers whose maps
            have at most a quarter of the image side.
        steps: Number of steps of Adam.
        lr: Learning rate of Adam, in units of σ.
        weight: Weight of the penalty on the change of the activations.
        distance: Distance to the image (pixels and VGG features in the paper, which also optimises the
            activations of earlier layers, near those of a code).
    """

    name = "layer"
    short_names = {"layer": ("LAYER",)}

    def __init__(
        self,
        first: Inverter,
        layer: str | None = None,
        steps: NonNegativeInt = STEPS,
        lr: PositiveFloat = 0.03,
        weight: NonNegativeFloat = 1e-3,
        distance: Distance | None = None,
    ):
        self.first, self.layer, self.steps, self.lr = first, layer, steps, lr
        self.weight, self.distance = weight, distance or Distance()

    @classmethod
    def from_short(cls, name: str, words: Mapping[str, str], search: Search) -> "Layer":
        first = Optimise.from_short("optimise", {}, search).single()
        return cls(first, words.get("LAYER"), search.steps(STEPS), distance=search.distance)

    def parts(self) -> dict[str, str]:
        return {"layer": self.layer} if self.layer else {}

    def why_not(self, model: LatentModel) -> str:
        missing = NOTHING_TO_ADD if model.is_exact else self.first.why_not(model)
        if missing:
            return missing
        layers = model.layers()
        if self.layer is not None and self.layer not in layers:
            return f"it has no layer {self.layer!r}"
        return "" if layers else "it has no hookable layers"

    def space_of(self, model: LatentModel) -> str:
        return self.first.space_of(model)

    def layer_of(self, model: LatentModel) -> str:
        """Return the name of the layer whose activations are optimised."""
        if self.layer is not None:
            return self.layer
        colours, height, _ = model.image_shape
        maps = [
            name
            for name, layer in model.layers().items()
            if layer.channels > colours and layer.size[0] <= max(4, height // 4)
        ]
        # A layer inside a block does not separate the network into a first and a last part.
        outermost = min((name.count(".") for name in maps), default=0)
        whole = [name for name in maps if name.count(".") == outermost]
        return whole[-1] if whole else next(iter(model.layers()))

    def invert(
        self,
        model: LatentModel,
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        images = self.check(model, images)
        first = self.first.invert(model, images, generator, labels)
        codes, layer = first.codes.to(model), self.layer_of(model)
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        start = activations_at(model, layer, codes, first.noise)
        begun = now(model)
        with frozen(model):
            best, trace = self._search(model, layer, start, codes, first.noise, target)
        replacement, seconds = {layer: best}, first.seconds + now(model) - begun
        finite = best.flatten(1).isfinite().all(1)
        return Inversion(
            method=f"{self.name} {layer}, {self.steps} steps after {first.method}",
            codes=codes,
            noise=first.noise,
            reconstruction=reconstruct(model, codes, first.noise, replacement),
            seconds=seconds,
            steps=first.steps + self.steps,
            losses=final_losses(trace, finite),
            all_codes=codes.values.unsqueeze(0),
            trace=trace.unsqueeze(1),
            activations=replacement,
        )

    def _search(
        self, model: LatentModel, layer: str, start: Tensor, codes: Codes, noise: list[Tensor], target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the optimised activations and the loss of every step."""
        # One std per image, because images are optimised independently.
        std = start.flatten(1).std(1)[:, None, None, None]
        offset = torch.zeros_like(start, requires_grad=True)
        adam, trace = torch.optim.Adam([offset], self.lr), []
        for _ in range(self.steps):
            with replaced(model, {layer: start + std * offset}):
                image = decode_with(model, codes, noise)
            loss = self.distance(model, image, target)
            loss = loss + self.weight * offset.square().flatten(1).mean(1)
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            trace.append(loss.detach())
        steps = torch.stack(trace) if trace else torch.empty(0, len(target))
        return (start + std * offset).detach(), steps


@torch.no_grad()
def activations_at(model: LatentModel, layer: str, codes: Codes, noise: list[Tensor]) -> Tensor:
    """Return the output (batch, C, height, width) of a layer when codes are decoded."""
    outputs: list[Tensor] = []
    with hooked(model, {layer: outputs.append}):
        decode_with(model, codes, noise)
    return outputs[-1]
