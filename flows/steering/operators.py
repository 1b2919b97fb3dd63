"""Edits of pictures that walks imitate: camera moves and colours (Jahanian et al. 2020, section 3.2)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from flows.errors import UserError


@dataclass(frozen=True)
class Operator(ABC):
    """An edit with a strength, and where its result is known.

    To add one: a class here with its name and range, in `OPERATORS`.

    Attributes:
        name: on the command line.
        low, high: strengths while a walk is learned.
        still: the strength that changes nothing.
        whole: whether its result is known at every pixel.
    """

    whole: ClassVar[bool] = False

    name: str
    low: float
    high: float
    still: float = 0.0

    @abstractmethod
    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """The edited images and where they are known.

        Args:
            images: (batch, C, H, W) in [0, 1].
            strength: (batch,).

        Returns:
            images of the same shape, and a mask (batch, 1, H, W) of 0 and 1: what lies outside the picture
            is not known.
        """

    def amount(self, strength: Tensor) -> Tensor:
        """What multiplies the walk for this strength, (batch,); 0 for `still`, about 1 at the ends."""
        return (strength - self.still) / max(self.high - self.still, self.still - self.low)

    def at(self, share: Tensor) -> Tensor:
        """The strength that a share in [0, 1] of all random ones lies below."""
        return self.low + (self.high - self.low) * share

    def draw(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """n random strengths."""
        return self.at(torch.rand(n, generator=generator))


class _Geometric(Operator):
    """A map of places: for every place of the result, where it comes from."""

    @abstractmethod
    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        """(batch, 3, 3): homogeneous places of the result to those of the source, in [−1, 1]."""

    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        matrix = self.matrices(strength.to(images), images)
        _, _, height, width = images.shape
        rows = (torch.arange(height, device=images.device, dtype=images.dtype) + 0.5) * 2 / height - 1
        columns = (torch.arange(width, device=images.device, dtype=images.dtype) + 0.5) * 2 / width - 1
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        places = torch.stack([x, y, torch.ones_like(x)], -1)
        source = torch.einsum("bij,hwj->bhwi", matrix, places)
        grid = source[..., :2] / source[..., 2:]
        moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
        # Half a pixel beyond its centre a border pixel still ends.
        inside = (grid.abs() <= 1 + 1e-4).all(-1, keepdim=True) & (source[..., 2:] > 0)
        return moved, inside.permute(0, 3, 1, 2).to(images.dtype)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


class Zoom(_Geometric):
    """By a factor, above 1 nearer; the walk is multiplied by its logarithm: in and out are opposites."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        return _matrix([[1 / strength, zero, zero], [zero, 1 / strength, zero], [zero, zero, one]])

    def amount(self, strength: Tensor) -> Tensor:
        return strength.log() / math.log(self.high)

    def at(self, share: Tensor) -> Tensor:
        return (math.log(self.low) + share * (math.log(self.high) - math.log(self.low))).exp()


class ShiftX(_Geometric):
    """To the right by a share of the width."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        return _matrix([[one, zero, -2 * strength], [zero, one, zero], [zero, zero, one]])


class ShiftY(_Geometric):
    """Downwards by a share of the height."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        return _matrix([[one, zero, zero], [zero, one, -2 * strength], [zero, zero, one]])


class Rotate2D(_Geometric):
    """Counter-clockwise, in degrees."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        angle, (height, width) = strength * math.pi / 180, images.shape[2:]
        one, zero, aspect = torch.ones_like(strength), torch.zeros_like(strength), height / width
        cos, sin = angle.cos(), angle.sin()
        return _matrix([[cos, -sin * aspect, zero], [sin / aspect, cos, zero], [zero, zero, one]])


class Rotate3D(_Geometric):
    """Of the picture's plane around its vertical axis, in degrees, seen from twice its half width away."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        angle, far = strength * math.pi / 180, 2.0
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        cos, sin = angle.cos(), angle.sin()
        # A point (u, v) of the plane is seen at (far·u cos, far·v)/(far + u sin); this is its inverse.
        return _matrix([[one, zero, zero], [zero, cos, zero], [-sin / far, zero, cos]])


class Brightness(Operator):
    """Added to all channels."""

    whole = True

    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        moved = (images + strength.to(images)[:, None, None, None]).clamp(0, 1)
        return moved, torch.ones_like(images[:, :1])


@dataclass(frozen=True)
class Colour(Operator):
    """Added to one channel.

    Attributes:
        channel: 0, 1 or 2.
    """

    whole: ClassVar[bool] = True
    channel: int = 0

    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.zeros(images.shape[1], dtype=images.dtype, device=images.device)
        one[self.channel] = 1
        moved = images + strength.to(images)[:, None, None, None] * one[:, None, None]
        return moved.clamp(0, 1), torch.ones_like(images[:, :1])


OPERATORS: dict[str, Operator] = {
    each.name: each
    for each in (
        Zoom("zoom", 0.5, 2.0, 1.0), ShiftX("shift x", -0.25, 0.25), ShiftY("shift y", -0.25, 0.25),
        Rotate2D("rotate 2d", -30.0, 30.0), Rotate3D("rotate 3d", -45.0, 45.0),
        Brightness("brightness", -0.4, 0.4), Colour("red", -0.4, 0.4), Colour("green", -0.4, 0.4, channel=1),
        Colour("blue", -0.4, 0.4, channel=2),
    )
}  # fmt: skip


def operators(names: Sequence[str]) -> list[Operator]:
    """Those of that name. Raises ValueError naming those that there are."""
    for name in names:
        if name not in OPERATORS:
            raise UserError(f"there is no edit {name!r}; expected some of {', '.join(OPERATORS)}")
    return [OPERATORS[name] for name in names]
