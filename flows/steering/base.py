"""A direction in a latent space, and the two ways to move along it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from flows.errors import CheckpointError, UserError
from flows.files import write_atomically
from flows.models.base import LatentModel, Space
from flows.models.codes import Codes
from flows.versioned import check_made_by, read_versioned

DIRECTIONS_VERSION = 1


@dataclass(frozen=True)
class Direction:
    """A unit vector of a space with the plane that it is normal to.

    The signed distance of a code from the plane is code · vector + bias; without the bias it would be right
    only for planes through the origin, which those in w are not.

    Attributes:
        name: of what it changes.
        vector: (D,), of length 1.
        bias: see above.
        space: name of the space.
        sigma: standard deviation of code · vector over the codes it was found on: the unit of every step.
        method: by which it was found.
        levels: those that it moves; all where empty.
        fingerprint: of the model.
        evidence: Figures that support it: accuracies, shares of variance, lengths.
        slices: Slices of the code's last axis for `levels`; not stored, as the space has them.
    """

    name: str
    vector: Tensor
    bias: float
    space: str
    sigma: float
    method: str
    levels: tuple[str, ...] = ()
    fingerprint: str = ""
    evidence: dict[str, float] = field(default_factory=dict)
    slices: tuple[slice, ...] = ()

    def distance(self, code: Tensor) -> Tensor:
        """Signed distances (batch,) of codes (batch, D) from the plane, in the units of the space."""
        return code @ self.vector.to(code) + self.bias

    def on_levels(self, levels: Sequence[str], space: Space) -> "Direction":
        """The same direction, restricted to some levels. Raises UserError if the space has no such level."""
        for name in levels:
            if name not in space.levels:
                raise UserError(
                    f"space {space.name!r} has no level {name!r}; expected some of {', '.join(space.levels)}"
                )
        slices = tuple(space.levels[name] for name in levels)
        return replace(self, levels=tuple(levels), slices=slices)

    @property
    def step(self) -> Tensor:
        """Change of a code for one unit of length, (D,): the vector, zero outside the direction's levels."""
        if not self.levels:
            return self.vector
        step = torch.zeros_like(self.vector)
        for where in self.slices:
            step[where] = self.vector[where]
        return step

    def check(self, codes: Codes) -> None:
        """Raise UserError unless the codes are in the direction's space."""
        if codes.space != self.space:
            raise UserError(f"{self.name} is a direction of {self.space!r}, the codes are in {codes.space!r}")


def shift(codes: Codes, direction: Direction, alpha: float | Tensor) -> Codes:
    """Move codes by `alpha` sigmas from where they are.

    Args:
        codes: n codes in the direction's space.
        direction: Direction of the move.
        alpha: Number of sigmas, one for all codes or (n,).
    """
    direction.check(codes)
    values = codes.values
    amount = torch.as_tensor(alpha).to(values).expand(len(values)) * direction.sigma
    return codes.with_values(values + amount[:, None] * direction.step.to(values))


def place(codes: Codes, direction: Direction, alpha: float | Tensor) -> Codes:
    """Move codes to a signed distance of `alpha` sigmas from the direction's plane.

    Args:
        codes: n codes in the direction's space.
        direction: Direction of the move.
        alpha: Number of sigmas, one for all codes or (n,).
    """
    direction.check(codes)
    values, step = codes.values, direction.step.to(codes.values)
    wanted = torch.as_tensor(alpha).to(values).expand(len(values)) * direction.sigma
    missing = wanted - direction.distance(values)
    return codes.with_values(values + (missing / (step @ direction.vector.to(values)))[:, None] * step)


# Files --------------------------------------------------------------------------------------------


def save_directions(path: Path, directions: Sequence[Direction]) -> None:
    """Write directions to a safetensors file."""
    told = [as_row(each) for each in directions]
    tensors = {f"vector.{i}": each.vector.cpu().contiguous() for i, each in enumerate(directions)}
    metadata = {"directions_version": str(DIRECTIONS_VERSION), "directions": json.dumps(told)}
    write_atomically(path, lambda target: save_file(tensors, target, metadata=metadata))


def load_directions(path: Path, model: LatentModel) -> list[Direction]:
    """Read the directions of a model.

    Raises:
        CheckpointError: missing, no such file, altered, or of another model; the message has both
            fingerprints.
    """
    metadata, tensors = read_versioned(
        path, "file of directions", "directions", DIRECTIONS_VERSION, "flows steer find"
    )
    try:
        told: list[dict[str, Any]] = json.loads(metadata["directions"])
        found = [
            Direction(**{**each, "levels": tuple(each["levels"]), "vector": tensors[f"vector.{i}"]})
            for i, each in enumerate(told)
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was altered: its contents do not fit together ({error})") from error
    for fingerprint in {each.fingerprint for each in found}:
        check_made_by(path, "directions", model, fingerprint)
    for each in found:
        if each.vector.shape != model.check_space(each.space).shape:
            raise CheckpointError(f"{path} was altered: {each.name!r} has not the size of its space")
    return [each.on_levels(each.levels, model.spaces[each.space]) for each in found]


def as_row(direction: Direction) -> dict[str, Any]:
    """Everything that a file's header holds, as plain values: all but the vector."""
    return {key: value for key, value in vars(direction).items() if key not in ("vector", "slices")}
