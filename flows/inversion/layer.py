"""Inversion of the last layers of a generator only (Bau et al. 2019, arXiv 1910.11626, section 3.2)."""

import torch
from torch import Tensor

from flows import images as pixels
from flows.hooks import hooked
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
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.numerics import frozen


class Layer(Inverter):
    """A code by another inverter, then a search over a layer's activations, whatever code might give them.

    What comes back is what the layers after it can draw, so that what is still missing is what they cannot.
    The loss is that of `Optimise` plus weight·mean(((r − r₀)/σ)²), r₀ the activations of the code and σ their
    standard deviation.

    Args:
        first: finds the code.
        layer: of `model.units()`; None takes the last of the outermost ones whose maps have at most a
            quarter of the images' side.
        steps: of Adam.
        lr: of Adam, in units of σ.
        weight: of what holds the activations back.
        distance: to the image (pixels and VGG's features in the paper, which also searches the layers before
            as far as a code reaches them).
    """

    name = "layer"

    def __init__(
        self,
        first: Inverter,
        layer: str | None = None,
        steps: int = 300,
        lr: float = 0.03,
        weight: float = 1e-3,
        distance: Distance | None = None,
    ):
        self.first, self.layer, self.steps, self.lr = first, layer, steps, lr
        self.weight, self.distance = weight, distance or Distance()

    def why_not(self, model: LatentModel) -> str:
        missing = NOTHING_TO_ADD if model.is_exact else self.first.why_not(model)
        if missing:
            return missing
        units = model.units()
        if self.layer is not None and self.layer not in units:
            return f"it has no layer {self.layer!r}"
        return "" if units else "it has no layers that hooks can see"

    def space_of(self, model: LatentModel) -> str:
        return self.first.space_of(model)

    def layer_of(self, model: LatentModel) -> str:
        """The layer that is searched."""
        if self.layer is not None:
            return self.layer
        colours, side, _ = model.image_shape
        units = model.units().items()
        maps = [name for name, unit in units if unit.channels > colours and unit.size[0] <= max(4, side // 4)]
        outermost = min((name.count(".") for name in maps), default=0)  # parts of a block are no cut
        whole = [name for name in maps if name.count(".") == outermost]
        return whole[-1] if whole else next(iter(model.units()))

    def invert(
        self,
        model: LatentModel,
        images: Tensor,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Inversion:
        self.check(model, images)
        first = self.first.invert(model, images, generator, labels)
        codes, layer = first.codes.to(model), self.layer_of(model)
        target = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
        start = activations_at(model, layer, codes, first.noise)
        begun = now(model)
        with frozen(model):
            best, trace = self._search(model, layer, start, codes, first.noise, target)
        put, seconds = {layer: best}, first.seconds + now(model) - begun
        fine = best.flatten(1).isfinite().all(1)
        return Inversion(
            f"{self.name} {layer}, {self.steps} steps after {first.method}", codes, first.noise,
            reconstruct(model, codes, first.noise, put), seconds, first.steps + self.steps,
            final_losses(trace, fine), codes.values.unsqueeze(0), trace.unsqueeze(1), put,
        )  # fmt: skip

    def _search(
        self, model: LatentModel, layer: str, start: Tensor, codes: Codes, noise: list[Tensor], target: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Activations and the loss of every step."""
        width = start.flatten(1).std(1)[:, None, None, None]  # each image's own: they are searched alone
        moved = torch.zeros_like(start, requires_grad=True)
        adam, trace = torch.optim.Adam([moved], self.lr), []
        for _ in range(self.steps):
            with replaced(model, {layer: start + width * moved}):
                image = decode_with(model, codes, noise)
            loss = self.distance(model, image, target)
            loss = loss + self.weight * moved.square().flatten(1).mean(1)
            adam.zero_grad()
            loss.sum().backward()
            adam.step()
            trace.append(loss.detach())
        steps = torch.stack(trace) if trace else torch.empty(0, len(target))
        return (start + width * moved).detach(), steps


@torch.no_grad()
def activations_at(model: LatentModel, layer: str, codes: Codes, noise: list[Tensor]) -> Tensor:
    """What a layer answers with when these codes are decoded, (batch, C, height, width)."""
    found: list[Tensor] = []
    with hooked(model, {layer: found.append}):
        decode_with(model, codes, noise)
    return found[-1]
