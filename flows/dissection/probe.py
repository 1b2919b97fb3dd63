"""Probes: keep and change the activations of a model's layers, and leave the model as it was."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flows.core.checks import did_you_mean
from flows.core.hooks import Hook, hooked
from flows.core.numerics import exact_arithmetic
from flows.errors import UserError
from flows.models.base import BATCH, LatentModel, LayerShape
from flows.models.codes import Codes

__all__ = ["Change", "Probe", "default_layers", "instrument", "layers_of"]

LAYERS = 8
"""Maximum number of layers of each kind that are dissected by default."""
CODE = "code/"
"""Prefix of a level's name for the layer that is its spatial part of the code, such as `code/level2`."""


@dataclass(frozen=True)
class Change:
    """Change of a layer's activations h to h·(1 − amount) + value·amount.

    Attributes:
        amount: Amounts in [0, 1], of a shape that broadcasts with (batch, C, height, width).
        value: Values, of a shape that broadcasts with (batch, C, height, width).
    """

    amount: Tensor
    value: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        amount, value = self.amount.to(h), self.value.to(h)
        # Where the amount is 0, activations stay the same to the last bit.
        return torch.where(amount == 0, h, h * (1 - amount) + value * amount)


class Probe:
    """Decoder that keeps and changes the activations of layers.

    Layers are those of `layers_of`: the model's layers by name, and `code/<level>` for parts of the code.

    Attributes:
        kept: Latest output of each retained layer, before any change, (batch, C, height, width).
    """

    def __init__(self, model: LatentModel, space: str):
        self.model, self.space = model, space
        self.kept: dict[str, Tensor] = {}
        self._retained: set[str] = set()
        self._changes: dict[str, list[Change]] = {}

    @cached_property
    def layers(self) -> dict[str, LayerShape]:
        """Layers as returned by `layers_of`; computed at first use, which takes as long as one decoding."""
        return layers_of(self.model, self.space)

    def retain(self, *layers: str) -> None:
        """Keep the outputs of layers. Raises UserError if there is no such layer."""
        for layer in layers:
            self.check(layer)
        self._retained |= set(layers)

    def change(self, layer: str, change: Change) -> None:
        """Add a change; those of a layer are applied in order. Raises UserError if there is no such layer."""
        self.check(layer)
        self._changes.setdefault(layer, []).append(change)

    def undo(self, layer: str | None = None) -> None:
        """Remove the changes of a layer, or all changes."""
        if layer is None:
            self._changes.clear()
        else:
            self._changes.pop(layer, None)

    def decode(self, codes: Codes) -> Tensor:
        """Images (batch, C, H, W) of codes in the probe's space, with all changes applied.

        Raises:
            UserError: The codes are in another space.
        """
        if codes.space != self.space:
            raise UserError(f"expected codes of space {self.space!r}, got codes of {codes.space!r}")
        codes = codes.to(self.model)
        code = self._through_code(codes.values)
        inner = {name for name in (*self._retained, *self._changes) if not name.startswith(CODE)}
        hooks = {name: self._hook(name) for name in inner}
        with hooked(self.model, hooks), exact_arithmetic(self.model.device):
            return self.model.decode(code, codes.space, codes.labels)

    def batches(self, codes: Codes, size: int = BATCH) -> Iterator[tuple[slice, Tensor]]:
        """Slices of the codes, with their images (batch, C, H, W) with all changes applied."""
        for start in range(0, len(codes), size):
            rows = slice(start, start + size)
            yield rows, self.decode(codes[rows])

    def check(self, layer: str) -> None:
        """Raise UserError, naming some of the layers, if there is no such layer."""
        if layer not in self.layers:
            some = ", ".join(list(self.layers)[:12])
            raise UserError(f"{type(self.model).__name__} has no layer {layer!r}; expected one of {some}, …")

    def _hook(self, name: str) -> Hook:
        def hook(output: Tensor) -> Tensor | None:
            return self._apply(name, output)

        return hook

    def _apply(self, name: str, output: Tensor) -> Tensor | None:
        if name in self._retained:
            self.kept[name] = output
        changes = self._changes.get(name, [])
        for change in changes:
            output = change(output)
        return output if changes else None

    def _through_code(self, code: Tensor) -> Tensor:
        space = self.model.check_space(self.space)
        for level, shape in space.maps.items():
            name, position = CODE + level, space.levels[level]
            if name in self._retained or name in self._changes:
                part = code[:, position].unflatten(1, shape)
                changed = self._apply(name, part)
                if changed is not None:
                    code = torch.cat(
                        [code[:, : position.start], changed.flatten(1), code[:, position.stop :]], 1
                    )
        return code


def layers_of(model: LatentModel, space: str) -> dict[str, LayerShape]:
    """Layers that can be kept and changed: spatial parts of the code, and the model's layers."""
    maps = model.check_space(space).maps
    parts = {CODE + level: LayerShape(shape[0], (shape[1], shape[2])) for level, shape in maps.items()}
    return {**parts, **model.layers()}


def layer_of(model: LatentModel, space: str, name: str) -> LayerShape:
    """Shape of one of `layers_of`. Raises UserError, with the names that there are, for another name."""
    layers = layers_of(model, space)
    if name not in layers:
        known = ", ".join(layers) or "none, because the model has no layers with maps"
        raise UserError(f"there is no layer {name!r}; expected one of {known}.{did_you_mean(name, layers)}")
    return layers[name]


def outer_layers(model: LatentModel) -> list[str]:
    """Outermost numbered layers of a model that have more channels than the image, in the model's order."""
    numbered = [
        name
        for name, layer in model.layers().items()
        if name.split(".")[-1].isdigit() and layer.channels > model.image_shape[0]
    ]
    depth = min((name.count(".") for name in numbered), default=0)
    return [name for name in numbered if name.count(".") == depth]


def networks_inside(model: LatentModel) -> list[str]:
    """Hidden layers of a flow's coupling networks, in its order: those wider than any outermost layer.

    Each state of a flow has as many values as the image; features are in the coupling networks. For other
    models the list is empty, because the outermost layers hold the features.
    """
    if not model.is_exact:
        return []
    layers, outer = model.layers(), outer_layers(model)
    widest = max((layers[name].channels for name in outer), default=0)
    return [name for name, layer in layers.items() if outer and layer.channels > widest]


def default_layers(model: LatentModel, space: str) -> list[str]:
    """Parts of the code, and some of the outermost layers and of the networks inside, at equal steps."""
    layers = model.layers()
    parts = [name for name in layers_of(model, space) if name not in layers]
    return parts + some_of(outer_layers(model)) + some_of(networks_inside(model))


def some_of(layers: list[str]) -> list[str]:
    """At most `LAYERS` of the layers, at equal steps."""
    return layers[:: -(-len(layers) // LAYERS) or 1]


@contextmanager
def instrument(model: LatentModel, space: str | None = None) -> Iterator[Probe]:
    """Context with a probe on a model; on exit the model is restored, also after an exception.

        with instrument(model) as probe:
            probe.retain("generator.synthesis.layers.2")
            images = probe.decode(codes)
            probe.kept["generator.synthesis.layers.2"]  # (batch, C, height, width)

    Args:
        model: Model in eval mode.
        space: Latent space of the codes; None takes the prior space.
    """
    probe = Probe(model, space or model.prior_space.name)
    try:
        yield probe
    finally:
        probe.undo()
        probe._retained.clear()
