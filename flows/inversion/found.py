"""Codes with what a search changed besides them: tuned weights, noise inputs and activations."""

import copy
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from flows.core.hooks import Hook, hooked
from flows.core.once import prepared
from flows.errors import UserError
from flows.inversion.base import Inversion, reconstruct_checked
from flows.inversion.exact import Certificate
from flows.inversion.layer import activations_at
from flows.inversion.records import Record, check_tensor
from flows.metrics.roundtrip import Precision, in_precision
from flows.models.base import HasNoise, LatentModel
from flows.models.codes import Codes, concatenate

__all__ = ["Adaptation", "Found", "adapted"]


@dataclass(frozen=True, eq=False)
class Adaptation:
    """Changes by a search besides the code of one image; two are equal only if they are the same object.

    Attributes:
        weights: Changed weights of the generator, by name.
        noise: Noise inputs, each (1, 1, height, width); empty if the stored noise is used.
        offsets: Name of a layer to the activations (1, C, height, width) that are added to its output. A
            moved code changes the output of the layer, and the offset stays.
    """

    weights: Mapping[str, Tensor] = field(default_factory=dict)
    noise: Sequence[Tensor] = ()
    offsets: Mapping[str, Tensor] = field(default_factory=dict)

    def tensors(self) -> dict[str, Tensor]:
        """All tensors, by a name that begins with the kind: `weights.`, `noise.` or `offsets.`."""
        return {
            **{f"weights.{name}": value for name, value in self.weights.items()},
            **{f"noise.{i}": value for i, value in enumerate(self.noise)},
            **{f"offsets.{name}": value for name, value in self.offsets.items()},
        }

    @staticmethod
    def of_tensors(tensors: Mapping[str, Tensor]) -> "Adaptation | None":
        """Adaptation of those tensors whose names are of `tensors()`; None if there are none."""
        kinds: dict[str, dict[str, Tensor]] = {"weights": {}, "noise": {}, "offsets": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            if kind in kinds:
                kinds[kind][rest] = value
        if not any(kinds.values()):
            return None
        noise = kinds["noise"]
        if set(noise) != {str(i) for i in range(len(noise))}:
            raise UserError(f"noise: expected numbers 0 … {len(noise) - 1}, got {', '.join(sorted(noise))}")
        return Adaptation(kinds["weights"], [noise[str(i)] for i in range(len(noise))], kinds["offsets"])

    def check(self, model: LatentModel) -> None:
        """Raise UserError unless the tensors have the shapes of the model's weights, noise and layers."""
        own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
        layers = {name: (1, each.channels, *each.size) for name, each in model.layers().items()}
        stored = model.noise() if isinstance(model, HasNoise) else []
        if len(self.noise) not in (0, len(stored)):
            raise UserError(f"noise: expected none or {len(stored)} inputs, got {len(self.noise)}")
        for name, value in self.weights.items():
            check_tensor(f"weights.{name}", value, own.get(name))
        for name, value in self.offsets.items():
            check_tensor(f"offsets.{name}", value, layers.get(name))
        for i, (value, each) in enumerate(zip(self.noise, stored, strict=False)):
            check_tensor(f"noise.{i}", value, tuple(each.shape))


def adapted(model: LatentModel, adaptation: Adaptation) -> LatentModel:
    """Copy of a model with the weights and noise inputs of an adaptation; offsets are left to `offset`."""
    changed = copy.deepcopy(model)
    if adaptation.weights:
        changed.load_state_dict(dict(adaptation.weights), strict=False)
    if adaptation.noise:
        assert isinstance(changed, HasNoise)
        for stored, value in zip(changed.noise(), adaptation.noise, strict=True):
            stored.copy_(value)
    return changed


def blended(
    model: LatentModel, first: Adaptation | None, second: Adaptation | None, share: float
) -> Adaptation:
    """Adaptation between two, at a share from 0 to 1 of the way; None stands for the model as it is.

    PTI (Roich et al. 2021) interpolates the weights of two tuned generators in this way.
    """
    first, second = first or Adaptation(), second or Adaptation()
    own = model.state_dict()
    stored = model.noise() if isinstance(model, HasNoise) else []

    def mix(one: Tensor, other: Tensor) -> Tensor:
        return torch.lerp(one.to(other), other, share) if other.is_floating_point() else other

    def pairs(one: Mapping[str, Tensor], other: Mapping[str, Tensor], base: Mapping[str, Tensor]) -> Any:
        names = dict.fromkeys([*one, *other])
        return {name: mix(one.get(name, base[name]), other.get(name, base[name]).cpu()) for name in names}

    noise = []
    if first.noise or second.noise:
        ends = zip(first.noise or stored, second.noise or stored, strict=True)
        noise = [mix(one, other.cpu()) for one, other in ends]
    zeros = {
        name: torch.zeros_like(value) for each in (first, second) for name, value in each.offsets.items()
    }
    return Adaptation(
        weights=pairs(first.weights, second.weights, own),
        noise=noise,
        offsets=pairs(first.offsets, second.offsets, zeros),
    )


def offset(model: LatentModel, adaptation: Adaptation) -> AbstractContextManager[None]:
    """Context in which the layers of an adaptation add their offsets."""

    def adder(value: Tensor) -> Hook:
        return lambda output: output + value.to(output)

    return hooked(model, {name: adder(value) for name, value in adaptation.offsets.items()})


@dataclass(frozen=True, kw_only=True)
class Found:
    """Codes that can be moved, mixed and painted, wherever they come from.

    Attributes:
        codes: n codes.
        names: One name per code.
        adaptations: Adaptation of each code, or None; empty if no code has one.
        precision: Precision in which each code must be decoded; empty if all have the model's.
        certificates: One certificate per code of `flows encode`; empty for other codes.
    """

    codes: Codes
    names: list[str]
    adaptations: Sequence[Adaptation | None] = ()
    precision: list[Precision] = field(default_factory=list)
    certificates: list[Certificate] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.codes)

    def __getitem__(self, i: int) -> "Found":
        """The i-th code alone, from the end if i is negative; raises IndexError if there is none."""
        return self.rows([range(len(self))[i]])

    def first(self, n: int) -> "Found":
        """The first n codes; all if there are fewer."""
        return self.rows(list(range(min(n, len(self)))))

    def rows(self, rows: Sequence[int]) -> "Found":
        """The codes with these numbers."""
        return Found(
            codes=self.codes[list(rows)],
            names=[self.names[i] for i in rows],
            adaptations=[self.adaptations[i] for i in rows] if self.adaptations else (),
            precision=[self.precision[i] for i in rows] if self.precision else [],
            certificates=[self.certificates[i] for i in rows] if self.certificates else [],
        )

    def adaptation(self, i: int) -> Adaptation | None:
        """Adaptation of the i-th code; None if there is none."""
        return self.adaptations[i] if self.adaptations else None

    def model_for(self, model: LatentModel, i: int) -> LatentModel:
        """Model that decodes the i-th code: in its precision, with its weights and noise inputs."""
        if self.precision:
            model = in_precision(model, self.precision[i])
        adaptation = self.adaptation(i)
        return model if adaptation is None else adapted(model, adaptation)

    def decode(self, model: LatentModel) -> Tensor:
        """Decode the codes to uint8 images (n, C, H, W) on the host."""
        return self.decode_moved(model, [self.codes])[0]

    def decode_moved(self, model: LatentModel, moves: Sequence[Codes]) -> list[Tensor]:
        """Decode moved codes, n per move, each with what belongs to the code that it was moved from.

        Returns:
            uint8 (n, C, H, W) on the host, one per move.
        """
        return [images for images, _ in self.decode_checked(model, moves)]

    @torch.no_grad()
    def decode_checked(self, model: LatentModel, moves: Sequence[Codes]) -> list[tuple[Tensor, Tensor]]:
        """Return the images of `decode_moved` and whether each is finite, (n,) bool, one pair per move."""
        images = torch.empty(len(moves), len(self), *model.image_shape, dtype=torch.uint8)
        finite = torch.empty(len(moves), len(self), dtype=torch.bool)
        for rows in self._alike():
            own, adaptation = self.model_for(model, rows[0]), self.adaptation(rows[0]) or Adaptation()
            with prepared(), offset(own, adaptation):
                for k, codes in enumerate(moves):
                    images[k, rows], finite[k, rows] = reconstruct_checked(own, codes[rows].to(own))
        return list(zip(images, finite, strict=True))

    def _alike(self) -> list[list[int]]:
        """Numbers of the codes that one model decodes: of one precision, and each adapted code alone."""
        parts: dict[Any, list[int]] = {}
        for i in range(len(self)):
            precision = self.precision[i] if self.precision else None
            parts.setdefault((precision, None if self.adaptation(i) is None else i), []).append(i)
        return list(parts.values())

    def converted(self, model: LatentModel, space: str) -> "Found":
        """Convert the codes to another space; raises Unsupported if the model has no map to it."""
        if space == self.codes.space:
            return self
        owners = (self.model_for(model, i) for i in range(len(self)))
        maps = [own.convert_codes(self.codes[i].to(own), space).cpu() for i, own in enumerate(owners)]
        return Found(
            codes=concatenate(maps), names=self.names, adaptations=self.adaptations, precision=self.precision
        )


def found_by(inversion: Inversion, names: Sequence[str], model: LatentModel) -> Found:
    """Codes of an inversion with what it changed besides them."""
    return _found(
        model,
        inversion.codes,
        list(names),
        inversion.weights,
        inversion.noise,
        inversion.activations,
        inversion.precision,
    )


def found_in(record: Record, model: LatentModel) -> Found:
    """Codes of a record with what the search changed besides them."""
    names = [source.name for source in record.sources]
    return _found(
        model, record.codes, names, record.weights, record.noise, record.activations, record.precision
    )


def _found(
    model: LatentModel,
    codes: Codes,
    names: list[str],
    weights: Sequence[Mapping[str, Tensor]],
    noise: Sequence[Tensor],
    activations: Mapping[str, Tensor],
    precision: list[Precision],
) -> Found:
    here = codes.to(model)
    placed = [value.to(model.device, model.dtype) for value in noise]
    offsets = {
        layer: value.to(model.device, model.dtype) - activations_at(model, layer, here, placed)
        for layer, value in activations.items()
    }
    adaptations = [
        Adaptation(
            weights=weights[i] if weights else {},
            noise=[value[i : i + 1].cpu() for value in noise],
            offsets={layer: value[i : i + 1].cpu() for layer, value in offsets.items()},
        )
        for i in range(len(codes))
    ]
    some = bool(weights or noise or offsets)
    return Found(
        codes=codes.cpu(), names=names, adaptations=adaptations if some else (), precision=list(precision)
    )
