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
        evidence: what speaks for it: accuracies, shares of variance, sizes.
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

    def distance(self, code: Tensor) -> Tensor:
        """Signed distances (batch,) of codes (batch, D) from the plane, in the units of the space."""
        return code @ self.vector.to(code) + self.bias

    def on_levels(self, levels: Sequence[str], space: Space) -> "Direction":
        """The same, moving these levels only. Raises ValueError where the space has none of that name."""
        for name in levels:
            if name not in space.levels:
                raise UserError(
                    f"space {space.name!r} has no level {name!r}; expected some of {', '.join(space.levels)}"
                )
        return replace(self, levels=tuple(levels))


def step_of(direction: Direction, space: Space) -> Tensor:
    """What is added for one unit of length, (D,): the vector, zero outside its levels."""
    if not direction.levels:
        return direction.vector
    step = torch.zeros_like(direction.vector)
    for name in direction.levels:
        step[space.levels[name]] = direction.vector[space.levels[name]]
    return step


def shift(code: Tensor, direction: Direction, alpha: float | Tensor, space: Space) -> Tensor:
    """Codes moved by `alpha` sigmas, relative to where they are.

    Args:
        code: (batch, D).
        direction: along which.
        alpha: in sigmas, one number or (batch,).
        space: of the codes.
    """
    amount = torch.as_tensor(alpha).to(code).expand(len(code)) * direction.sigma
    return code + amount[:, None] * step_of(direction, space).to(code)


def place(code: Tensor, direction: Direction, alpha: float | Tensor, space: Space) -> Tensor:
    """Codes moved to a signed distance of `alpha` sigmas from the plane, wherever they were.

    Args:
        code: (batch, D).
        direction: along which.
        alpha: in sigmas, one number or (batch,).
        space: of the codes.
    """
    step = step_of(direction, space).to(code)
    wanted = torch.as_tensor(alpha).to(code).expand(len(code)) * direction.sigma
    missing = wanted - direction.distance(code)
    return code + (missing / (step @ direction.vector.to(code)))[:, None] * step


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
    return found


def as_row(direction: Direction) -> dict[str, Any]:
    """Everything but the vector, as plain values."""
    return {key: value for key, value in vars(direction).items() if key != "vector"}
