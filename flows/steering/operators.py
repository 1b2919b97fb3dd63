"""Image edits that walks imitate: camera moves and changes of colour (Jahanian et al. 2020, section 3.2)."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from flows.errors import UserError

__all__ = ["OPERATORS", "Operator"]


@dataclass(frozen=True)
class Operator(ABC):
    """An image edit with a strength, and a mask of the pixels for which its result is known.

    To add one: write a subclass in this file and add an instance, with its name and range, to `OPERATORS`.

    Attributes:
        name: Name on the command line.
        low, high: Range of strengths that walks are learned from.
        still: Strength that changes nothing.
        whole: Whether the result is known at every pixel.
        group: Group in menus.
    """

    whole: ClassVar[bool] = False
    group: ClassVar[str] = "other"

    name: str
    low: float
    high: float
    still: float = 0.0

    @abstractmethod
    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        """Edit images.

        Args:
            images: (batch, C, H, W) in [0, 1].
            strength: (batch,).

        Returns:
            Edited images of the same shape, and a mask (batch, 1, H, W) of 0 and 1; pixels whose source lies
            outside the image are not known.
        """

    def amount(self, strength: Tensor) -> Tensor:
        """Factor of the walk for a strength, (batch,): 0 for `still`, about ±1 at the ends of the range."""
        return (strength - self.still) / max(self.high - self.still, self.still - self.low)

    def at(self, share: Tensor) -> Tensor:
        """Strength at a quantile, in [0, 1], of the distribution that `sample` samples from."""
        return self.low + (self.high - self.low) * share

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Sample n strengths at random."""
        return self.at(torch.rand(n, generator=generator))


class _Geometric(Operator):
    """Base class of edits that map each position of the result to a position of the input."""

    @abstractmethod
    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        """Matrices (batch, 3, 3) from homogeneous positions of the result to the input's, in [−1, 1]."""

    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        matrix = self.matrices(strength.to(images), images)
        _, _, height, width = images.shape
        rows = (torch.arange(height, device=images.device, dtype=images.dtype) + 0.5) * 2 / height - 1
        columns = (torch.arange(width, device=images.device, dtype=images.dtype) + 0.5) * 2 / width - 1
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        positions = torch.stack([x, y, torch.ones_like(x)], -1)
        source = torch.einsum("bij,hwj->bhwi", matrix, positions)
        grid = source[..., :2] / source[..., 2:]
        moved = grid_sample(images, grid, padding_mode="border", align_corners=False)
        # Border pixels end at ±1, half a pixel beyond their centres.
        inside = (grid.abs() <= 1 + 1e-4).all(-1, keepdim=True) & (source[..., 2:] > 0)
        return moved, inside.permute(0, 3, 1, 2).to(images.dtype)


def _matrix(rows: list[list[Tensor]]) -> Tensor:
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


class Zoom(_Geometric):
    """Zoom in by a factor; `amount` is proportional to its logarithm, so that in and out are opposites."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        return _matrix([[1 / strength, zero, zero], [zero, 1 / strength, zero], [zero, zero, one]])

    def amount(self, strength: Tensor) -> Tensor:
        return strength.log() / math.log(self.high)

    def at(self, share: Tensor) -> Tensor:
        return (math.log(self.low) + share * (math.log(self.high) - math.log(self.low))).exp()


class ShiftX(_Geometric):
    """Shift to the right by a share of the width."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        return _matrix([[one, zero, -2 * strength], [zero, one, zero], [zero, zero, one]])


class ShiftY(_Geometric):
    """Shift downwards by a share of the height."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        return _matrix([[one, zero, zero], [zero, one, -2 * strength], [zero, zero, one]])


class Rotate2D(_Geometric):
    """Counter-clockwise rotation in degrees."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        angle, (height, width) = strength * math.pi / 180, images.shape[2:]
        one, zero, aspect = torch.ones_like(strength), torch.zeros_like(strength), height / width
        cos, sin = angle.cos(), angle.sin()
        return _matrix([[cos, -sin * aspect, zero], [sin / aspect, cos, zero], [zero, zero, one]])


class Rotate3D(_Geometric):
    """Rotation of the image plane about its vertical axis, in degrees, viewed from twice its half width."""

    def matrices(self, strength: Tensor, images: Tensor) -> Tensor:
        angle, far = strength * math.pi / 180, 2.0
        one, zero = torch.ones_like(strength), torch.zeros_like(strength)
        cos, sin = angle.cos(), angle.sin()
        # A point (u, v) of the plane is projected to (far·u cos, far·v)/(far + u sin); this is the inverse.
        return _matrix([[one, zero, zero], [zero, cos, zero], [-sin / far, zero, cos]])


class Brightness(Operator):
    """Constant added to all channels."""

    whole = True

    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        moved = (images + strength.to(images)[:, None, None, None]).clamp(0, 1)
        return moved, torch.ones_like(images[:, :1])


@dataclass(frozen=True)
class Colour(Operator):
    """Constant added to one channel.

    Attributes:
        channel: Index of the channel: 0, 1 or 2.
    """

    whole: ClassVar[bool] = True
    group: ClassVar[str] = "colour"
    channel: int = 0

    def __call__(self, images: Tensor, strength: Tensor) -> tuple[Tensor, Tensor]:
        if self.channel >= images.shape[1]:
            raise UserError(f"{self.name}: expected images in RGB, got {images.shape[1]} channel(s)")
        one = torch.zeros(images.shape[1], dtype=images.dtype, device=images.device)
        one[self.channel] = 1
        moved = images + strength.to(images)[:, None, None, None] * one[:, None, None]
        return moved.clamp(0, 1), torch.ones_like(images[:, :1])


OPERATORS: dict[str, Operator] = {
    each.name: each
    for each in (
        Zoom("zoom", 0.5, 2.0, 1.0),
        ShiftX("shift x", -0.25, 0.25),
        ShiftY("shift y", -0.25, 0.25),
        Rotate2D("rotate 2d", -30.0, 30.0),
        Rotate3D("rotate 3d", -45.0, 45.0),
        Brightness("brightness", -0.4, 0.4),
        Colour("red", -0.4, 0.4),
        Colour("green", -0.4, 0.4, channel=1),
        Colour("blue", -0.4, 0.4, channel=2),
    )
}


def group_of(name: str) -> str | None:
    """Group in menus of the edit with this name; None if there is no such edit."""
    return OPERATORS[name].group if name in OPERATORS else None


def operators(names: Sequence[str]) -> list[Operator]:
    """Edits with these names. Raises UserError, naming the known edits, if there is no such edit."""
    for name in names:
        if name not in OPERATORS:
            raise UserError(f"there is no edit {name!r}; expected some of {', '.join(OPERATORS)}")
    return [OPERATORS[name] for name in names]
