"""Reusable buffers: on a CPU, allocating megabytes takes longer than the product that fills them."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

T = TypeVar("T")


class Workspace:
    """Named buffers for images of one size; each is allocated once and then overwritten.

    Args:
        like: Tensor with the dtype and device of the buffers.
        batch, height, width: Size of the images; P = batch·height·width is the number of pixels.
    """

    def __init__(self, like: Tensor, batch: int, height: int, width: int):
        self.like = like.new_empty(0)
        self.batch, self.height, self.width = batch, height, width
        self.pixels = batch * height * width
        self._buffers: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """Return the buffer called `name`, a tensor or several views; `make` allocates it on first use."""
        if name not in self._buffers:
            self._buffers[name] = make()
        return cast(T, self._buffers[name])

    def rows(self, name: str, channels: int) -> Tensor:
        """Buffer (P, channels) with undefined contents."""
        return self.get(name, lambda: self.like.new_empty(self.pixels, channels))

    def padded(self, channels: int, marked: bool = False) -> Tensor:
        """Allocate zeros (batch, H + 2, W + 2, channels).

        If `marked`, the last channel is 1 on the border.
        """
        padded = self.like.new_zeros(self.batch, self.height + 2, self.width + 2, channels)
        if marked:
            padded[..., -1] = 1
            padded[:, 1:-1, 1:-1, -1] = 0
        return padded
