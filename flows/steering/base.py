"""Directions in a latent space, and two ways to move codes along them: `shift` and `place`."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from flows.core.schema import parse, read_json, unaltered
from flows.core.statistics import ALPHA
from flows.errors import UserError
from flows.models.base import LatentModel, Space
from flows.models.codes import Codes
from flows.storage.files import StrPath
from flows.storage.tensor_files import save_tensors
from flows.storage.versioned import check_made_by, read_versioned

__all__ = ["Direction", "load_directions", "place", "save_directions", "shift"]

DIRECTIONS_VERSION = 1
"""Format version of files of directions."""
DIRECTIONS_FILE = "directions.safetensors"
"""Name of the file of directions in the folder of a checkpoint."""


@dataclass(frozen=True, kw_only=True)
class Direction:
    """Unit vector of a space, with the hyperplane that it is normal to.

    The signed distance of a code from the plane is code · vector + bias. The bias is needed because planes in
    w do not pass through the origin.

    Attributes:
        name: Name of the score, factor or edit that the direction changes.
        vector: (D,), of unit length.
        bias: Offset of the plane, in units of the space.
        space: Name of the space.
        sigma: Standard deviation of code · vector over the codes that the direction was found on; all steps
            are multiples of it.
        method: Name of the method that found the direction.
        levels: Names of the levels that the direction moves; all levels if empty.
        fingerprint: Fingerprint of the model.
        bias_interval: 95 % interval of the bias; None if it is not known.
        evidence: Figures that support the direction: accuracies, shares of variance, lengths.
        slices: Slices of the code's last axis for `levels`; not stored, because the space defines them.

    Raises:
        UserError: Vector, bias, its interval or sigma is not finite, or there is not one slice per level;
            `on_levels` sets both.
    """

    name: str
    vector: Tensor
    bias: float
    space: str
    sigma: float
    method: str
    levels: tuple[str, ...] = ()
    fingerprint: str = ""
    bias_interval: tuple[float, float] | None = None
    evidence: dict[str, float] = field(default_factory=dict)
    slices: tuple[slice, ...] = ()

    def __post_init__(self) -> None:
        numbers: list[tuple[str, float]] = [("bias", self.bias), ("sigma", self.sigma)]
        numbers += [("bias_interval", end) for end in self.bias_interval or ()]
        for name, value in (*numbers, ("vector", float(self.vector.sum()))):
            if not math.isfinite(value):
                raise UserError(f"{self.name}: its {name} is not finite; find it on more codes")
        if not self.sigma > 0:
            raise UserError(f"{self.name}: expected a sigma above 0, got {self.sigma:g}; take more codes")
        if len(self.levels) != len(self.slices):
            raise UserError(
                f"{self.name}: expected one slice of the code per level, got levels {self.levels} and "
                f"{len(self.slices)} slices; `on_levels` sets both"
            )

    def distance(self, code: Tensor) -> Tensor:
        """Signed distances (batch,) of codes (batch, D) from the plane, in the units of the space."""
        return code @ self.vector.to(code) + self.bias

    def on_levels(self, levels: Sequence[str], space: Space) -> "Direction":
        """Restrict the direction to some levels. Raises UserError if the space has no such level."""
        return replace(self, levels=tuple(levels), slices=space.slices_of(levels))

    @property
    def doubt(self) -> str:
        """Sentence if shuffled labels would give such a direction as well; empty if not, or if not known."""
        p_value = self.evidence.get("p_value", 0.0)
        return (
            ""
            if p_value <= ALPHA
            else f"shuffled labels would give such a direction as well (p = {p_value:.2g})"
        )

    @property
    def step(self) -> Tensor:
        """Change of a code per unit of length, (D,): the vector, zero outside the direction's levels."""
        if not self.levels:
            return self.vector
        step = torch.zeros_like(self.vector)
        for part in self.slices:
            step[part] = self.vector[part]
        return step

    def check(self, codes: Codes) -> None:
        """Raise UserError unless the codes are in the direction's space and of its dimension."""
        if codes.space != self.space:
            raise UserError(f"{self.name}: expected codes of space {self.space!r}, got {codes.space!r}")
        if codes.values.shape[1:] != self.vector.shape:
            raise UserError(
                f"{self.name}: expected codes (n, {len(self.vector)}), got {tuple(codes.values.shape)}; the "
                "direction belongs to another model"
            )


def doubts(directions: Sequence[Direction]) -> list[str]:
    """Sentences on the directions that shuffled labels would give as well."""
    return [f"{each.name}: {each.doubt}" for each in directions if each.doubt]


def shift(codes: Codes, direction: Direction, alpha: float | Tensor) -> Codes:
    """Move codes by `alpha` sigmas along a direction.

    Args:
        codes: n codes in the direction's space.
        direction: Direction of the move.
        alpha: Number of sigmas, one for all codes or (n,).
    """
    direction.check(codes)
    values = codes.values
    amount = sigmas(alpha, values) * direction.sigma
    return codes.with_values(values + amount[:, None] * direction.step.to(values))


def sigmas(alpha: float | Tensor, values: Tensor) -> Tensor:
    """Number of sigmas for each of n codes, (n,). Raises UserError unless it is one or n finite numbers."""
    amount = torch.as_tensor(alpha).to(values)
    if amount.dim() > 1 or amount.numel() not in (1, len(values)) or not amount.isfinite().all():
        raise UserError(f"alpha: expected one finite number or {len(values)} of them, got {alpha}")
    return amount.expand(len(values))


def place(codes: Codes, direction: Direction, alpha: float | Tensor) -> Codes:
    """Move codes to a signed distance of `alpha` sigmas from the direction's plane.

    Args:
        codes: n codes in the direction's space.
        direction: Direction of the move.
        alpha: Number of sigmas, one for all codes or (n,).
    """
    direction.check(codes)
    values, step = codes.values, direction.step.to(codes.values)
    target = sigmas(alpha, values) * direction.sigma
    remaining = target - direction.distance(values)
    return codes.with_values(values + (remaining / (step @ direction.vector.to(values)))[:, None] * step)


# Files --------------------------------------------------------------------------------------------


def save_directions(path: StrPath, directions: Sequence[Direction]) -> None:
    """Write directions to a safetensors file."""
    rows = [as_row(direction) for direction in directions]
    # Clones, because safetensors refuses tensors that share memory, as copies of a direction do.
    tensors = {f"vector.{i}": each.vector.cpu().contiguous().clone() for i, each in enumerate(directions)}
    metadata = {"directions_version": str(DIRECTIONS_VERSION), "directions": json.dumps(rows)}
    save_tensors(path, tensors, metadata)


def load_directions(path: StrPath, model: LatentModel) -> list[Direction]:
    """Read directions of a model from a file.

    Raises:
        CheckpointError: The file is missing or altered, or belongs to another model; in that case, the
            message has both fingerprints.
    """
    metadata, tensors = read_versioned(
        path, "file of directions", "directions", DIRECTIONS_VERSION, "flows steer find"
    )
    with unaltered(path):
        rows = parse(list[dict[str, Any]], read_json(metadata.get("directions", "")))
        levels = [parse(list[str], row.pop("levels", []), f"[{i}].levels") for i, row in enumerate(rows)]
        directions = [
            parse(Direction, {**row, "vector": tensors.get(f"vector.{i}")}, f"[{i}]")
            for i, row in enumerate(rows)
        ]
    for fingerprint in {each.fingerprint for each in directions}:
        check_made_by(path, "directions", model, fingerprint)
    with unaltered(path):
        for each in directions:
            if each.vector.shape != model.check_space(each.space).shape:
                raise UserError(f"the vector of {each.name!r} does not have the shape of its space")
        return [
            each.on_levels(some, model.spaces[each.space])
            for each, some in zip(directions, levels, strict=True)
        ]


def as_row(direction: Direction) -> dict[str, Any]:
    """Fields of a direction as plain values, for the header of a file; without vector and slices."""
    return {key: value for key, value in vars(direction).items() if key not in ("vector", "slices")}
