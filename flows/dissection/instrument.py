"""An instrument on a model: keep what layers answer, change it, and leave no trace."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from flows.errors import UserError
from flows.hooks import Hook, hooked
from flows.models.base import BATCH, LatentModel, Unit
from flows.models.codes import Codes
from flows.numerics import exact_arithmetic

LAYERS = 8
"""Of one kind that are looked at unless they are named."""
CODE = "code/"
"""Before the name of a level: its part of the code itself, where that lies over the image."""


@dataclass(frozen=True)
class Change:
    """What becomes of a layer's activations h: h·(1 − amount) + value·amount.

    Attributes:
        amount: in [0, 1], of a shape that goes with (batch, C, height, width).
        value: likewise.
    """

    amount: Tensor
    value: Tensor

    def __call__(self, h: Tensor) -> Tensor:
        amount, value = self.amount.to(h), self.value.to(h)
        # Where nothing is asked nothing changes, to the last bit.
        return torch.where(amount == 0, h, h * (1 - amount) + value * amount)


class Probe:
    """Decodes, and meanwhile keeps and changes the activations of layers.

    Layers are those of `layers_of`: the model's units by name, and `code/<level>` for parts of the code.

    Attributes:
        kept: what each retained layer answered last, before any change, (batch, C, height, width).
    """

    def __init__(self, model: LatentModel, space: str):
        self.model, self.space = model, space
        self.kept: dict[str, Tensor] = {}
        self._retained: set[str] = set()
        self._changes: dict[str, list[Change]] = {}

    @cached_property
    def layers(self) -> dict[str, Unit]:
        """See `layers_of`; found when they are first asked for, which takes as long as a decoding."""
        return layers_of(self.model, self.space)

    def retain(self, *layers: str) -> None:
        """Keep what these answer. Raises ValueError where there is no such layer."""
        for layer in layers:
            self.check(layer)
        self._retained |= set(layers)

    def change(self, layer: str, change: Change) -> None:
        """Add a change; several of a layer come one after the other. Raises ValueError likewise."""
        self.check(layer)
        self._changes.setdefault(layer, []).append(change)

    def undo(self, layer: str | None = None) -> None:
        """Forget the changes of a layer, or all."""
        if layer is None:
            self._changes.clear()
        else:
            self._changes.pop(layer, None)

    def decode(self, codes: Codes) -> Tensor:
        """Images (batch, C, H, W) of codes of the probe's space, through the changes."""
        codes = codes.to(self.model)
        codes = codes.with_values(self._through_code(codes.values))
        inner = {name for name in (*self._retained, *self._changes) if not name.startswith(CODE)}
        hooks = {name: self._hook(name) for name in inner}
        with hooked(self.model, hooks), exact_arithmetic(self.model.device):
            return self.model.decode_codes(codes)

    def batches(self, codes: Codes, size: int = BATCH) -> Iterator[tuple[slice, Tensor]]:
        """Rows of the codes and their images (batch, C, H, W), through the changes."""
        for start in range(0, len(codes), size):
            rows = slice(start, start + size)
            yield rows, self.decode(codes[rows])

    def check(self, layer: str) -> None:
        """Raise ValueError naming some of the layers that there are."""
        if layer not in self.layers:
            some = ", ".join(list(self.layers)[:12])
            raise UserError(f"{type(self.model).__name__} has no layer {layer!r}; it has {some}, …")

    def _hook(self, name: str) -> Hook:
        def hook(output: Tensor) -> Tensor | None:
            return self._answer(name, output)

        return hook

    def _answer(self, name: str, output: Tensor) -> Tensor | None:
        if name in self._retained:
            self.kept[name] = output
        changes = self._changes.get(name, [])
        for change in changes:
            output = change(output)
        return output if changes else None

    def _through_code(self, code: Tensor) -> Tensor:
        space = self.model.check_space(self.space)
        for level, shape in space.maps.items():
            name, where = CODE + level, space.levels[level]
            if name in self._retained or name in self._changes:
                part = code[:, where].unflatten(1, shape)
                answer = self._answer(name, part)
                if answer is not None:
                    code = torch.cat([code[:, : where.start], answer.flatten(1), code[:, where.stop :]], 1)
        return code


def layers_of(model: LatentModel, space: str) -> dict[str, Unit]:
    """Every layer that can be kept and changed: parts of the code that lie over the image, and units."""
    maps = model.check_space(space).maps
    parts = {CODE + level: Unit(shape[0], (shape[1], shape[2])) for level, shape in maps.items()}
    return {**parts, **model.units()}


def outer_layers(model: LatentModel) -> list[str]:
    """The outermost numbered layers of a model that are no colours, in its order."""
    numbered = [
        name
        for name, unit in model.units().items()
        if name.split(".")[-1].isdigit() and unit.channels > model.image_shape[0]
    ]
    depth = min((name.count(".") for name in numbered), default=0)
    return [name for name in numbered if name.count(".") == depth]


def networks_inside(model: LatentModel) -> list[str]:
    """Hidden layers of a flow's coupling networks, in its order: those wider than any outermost layer.

    A flow's own states are as many numbers as the image everywhere; what it knows is in these networks. Of
    other models the outermost layers have it all.
    """
    if not model.is_exact:
        return []
    units, outer = model.units(), outer_layers(model)
    widest = max((units[name].channels for name in outer), default=0)
    return [name for name, unit in units.items() if outer and unit.channels > widest]


def default_layers(model: LatentModel, space: str) -> list[str]:
    """Parts of the code, some of the outermost layers, and of the networks inside, evenly chosen."""
    units = model.units()
    parts = [name for name in layers_of(model, space) if name not in units]
    return parts + some_of(outer_layers(model)) + some_of(networks_inside(model))


def some_of(layers: list[str]) -> list[str]:
    """At most `LAYERS` of them, at equal steps."""
    return layers[:: -(-len(layers) // LAYERS) or 1]


@contextmanager
def instrument(model: LatentModel, space: str | None = None) -> Iterator[Probe]:
    """A block with a probe on a model, which is afterwards what it was, after an exception, too.

        with instrument(model) as probe:
            probe.retain("generator.synthesis.layers.2")
            images = probe.decode(codes)
            probe.kept["generator.synthesis.layers.2"]  # (batch, C, height, width)

    Args:
        model: in eval mode.
        space: of the codes that will be decoded; None takes the prior space.
    """
    probe = Probe(model, space or model.prior_space.name)
    try:
        yield probe
    finally:
        probe.undo()
        probe._retained.clear()
