"""Squeezes, which trade spatial size for channels (RealNVP §3.6), and flattening."""

import torch
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from flows.bijections.base import Bijection, Example, Mapped, Shape
from flows.core.numerics import zero_log_det
from flows.errors import UserError
from flows.images import size_text

__all__ = ["Flatten", "OrderedSqueeze", "Squeeze"]


class Squeeze(Bijection):
    """Squeeze (C, H, W) to (4C, H/2, W/2): every 2×2 block becomes four channels, in order c, row, column."""

    constant_log_det = True

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return pixel_unshuffle(x, 2), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return pixel_shuffle(z, 2), zero_log_det(z)

    def output_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        if height % 2 or width % 2:
            raise UserError(
                f"cannot squeeze {size_text(height, width)} pixels: expected even sides; use fewer levels, "
                "or images whose sides are divisible by 2^levels"
            )
        return 4 * channels, height // 2, width // 2

    def input_shape(self, shape: Shape) -> Shape:
        channels, height, width = shape
        return channels // 4, 2 * height, 2 * width

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"not square": Example(cls(), (3, 4, 2))}


class OrderedSqueeze(Squeeze):
    """RealNVP's squeeze before factoring out: all channels of pixel (0,0), then of (1,1), (0,1), (1,0).

    The first half of the channels holds one colour of the checkerboard, the second half the other
    (`squeeze_2x2_ordered` in RealNVP's released code).
    """

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        pixels = [x[:, :, row::2, column::2] for row, column in _DIAGONALS]
        return torch.cat(pixels, 1), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        x = z.new_empty(z.shape[0], *self.input_shape(tuple(z.shape[1:])))
        for (row, column), pixels in zip(_DIAGONALS, z.chunk(4, 1), strict=True):
            x[:, :, row::2, column::2] = pixels
        return x, zero_log_det(z)


_DIAGONALS = ((0, 0), (1, 1), (0, 1), (1, 0))


class Flatten(Bijection):
    """Flattening of an image (C, H, W) to a vector (C·H·W,), in that order of axes.

    Args:
        shape: (C, H, W) of one image.
    """

    constant_log_det = True

    def __init__(self, shape: Shape):
        super().__init__()
        self.shape = tuple(shape)

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        return x.flatten(1), zero_log_det(x)

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        return z.unflatten(1, self.shape), zero_log_det(z)

    def output_shape(self, shape: Shape) -> Shape:
        return (torch.Size(shape).numel(),)

    def input_shape(self, shape: Shape) -> Shape:
        return self.shape

    @classmethod
    def examples(cls) -> dict[str, Example]:
        return {"image": Example(cls((3, 2, 4)), (3, 2, 4))}
