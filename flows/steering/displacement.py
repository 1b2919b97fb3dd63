"""Displacements f(edit(x)) − f(x): where the code of an edited picture lies, seen by the inverse."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.images import to_unit
from flows.models.base import LatentModel, Space
from flows.numerics import exact_arithmetic
from flows.once import prepared
from flows.steering.base import Direction
from flows.steering.method import Method, Task
from flows.steering.operators import Operator, operators

Edit = Callable[[Tensor, Tensor], Tensor]
"""uint8 images (batch, C, H, W) and strengths (batch,) to floats in [0, 1] of the same shape."""


@dataclass
class Displacement(Method):
    """The walk that fits the displacements of edited real images best, in closed form.

    v = Σ α·d / Σ α² over images x and strengths α, with d = f(edit(x, α)) − f(x): least squares of d on α.
    How straight the edit is in the space is told by R² = 1 − Σ|d − αv|² / Σ|d|², for each level too. Needs
    a model that encodes; with an exact inverse, d is the truth and not an encoder's opinion of it.

    Args:
        images: real training images.
        strengths: tried on each.
    """

    images: int = 200
    strengths: int = 2

    def find(self, task: Task) -> list[Direction]:
        """One direction for each edit named by `--scores`: zoom, shift x, brightness, …; see `OPERATORS`.

        Raises:
            ValueError: the model does not encode into this space, or there is no such edit.
        """
        if task.model.guarantee[task.space] == "none":
            raise ValueError(
                f"{type(task.model).__name__} does not encode into {task.space!r}: no displacement"
            )
        if task.data is None:
            raise ValueError("displacements are those of real images: --source images")
        given = task.data.split("train").first(self.images).images
        return [self.of_operator(task, given, each) for each in operators(task.names)]

    def of_operator(self, task: Task, images: Tensor, operator: Operator) -> Direction:
        """See `find`."""
        random = torch.Generator().manual_seed(task.seed)
        strengths = operator.draw(len(images) * self.strengths, random)
        repeated = images.repeat_interleave(self.strengths, 0)

        def edit(pictures: Tensor, strength: Tensor) -> Tensor:
            moved, known = operator(to_unit(pictures, task.model.bins), strength)
            return moved * known + to_unit(pictures, task.model.bins) * (1 - known)

        moved = displacements(task.model, repeated, edit, strengths, task.space)
        return fit(moved, operator.amount(strengths), operator.name, task)


@torch.no_grad()
def displacements(
    model: LatentModel, images: Tensor, edit: Edit, strengths: Tensor, space: str, batch: int = 100
) -> Tensor:
    """f(edit(x, α)) − f(x) of uint8 images (n, C, H, W) and strengths (n,): float64 (n, D), on the host.

    What an edit makes is rounded to the model's grey levels, as every picture is.
    """
    found = []
    with prepared(), exact_arithmetic(model.device):
        for part, strength in zip(images.split(batch), strengths.split(batch), strict=True):
            labels = model.first_class(len(part))
            edited = ((edit(part, strength) * model.bins).floor().clamp(0, model.bins - 1) + 0.5) / model.bins
            codes = [
                model.encode(each.to(model.device, model.dtype), space, labels).double().cpu()
                for each in (edited, to_unit(part, model.bins))
            ]
            found.append(codes[0] - codes[1])
    return torch.cat(found)


def fit(moved: Tensor, amounts: Tensor, name: str, task: Task) -> Direction:
    """The least-squares walk of displacements (n, D) on amounts (n,).

    Its `sigma` is the length that an amount of 1 moves; there is no plane, the bias is 0.
    """
    amounts = amounts.double()
    walk = amounts @ moved / amounts.square().sum()
    length = float(walk.norm())
    space = task.model.check_space(task.space)
    straight = linearity(moved, amounts, walk, space)
    return Direction(
        name, (walk / max(length, 1e-12)).float(), 0.0, task.space, length, "displacement",
        fingerprint=task.model.fingerprint(), evidence={**straight, "images": float(len(moved))},
    )  # fmt: skip


def linearity(moved: Tensor, amounts: Tensor, walk: Tensor, space: Space) -> dict[str, float]:
    """R² of displacements by a straight walk, of the whole code and of each level, and the levels' shares.

    `share <level>` is the level's part of Σ|d|²: which level the edit is of.
    """
    rest = (moved - amounts[:, None] * walk).square().sum(0)
    whole = moved.square().sum(0)
    found = {"r2": float(1 - rest.sum() / whole.sum())}
    if len(space.levels) > 1:
        for name, where in space.levels.items():
            found[f"r2 {name}"] = float(1 - rest[where].sum() / whole[where].sum().clamp(min=1e-12))
            found[f"share {name}"] = float(whole[where].sum() / whole.sum())
    return found
