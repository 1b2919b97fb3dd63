"""Memory that is written over: on a CPU fresh megabytes cost more time than a product that fills them."""

from collections.abc import Callable
from typing import Any, TypeVar, cast

from torch import Tensor

T = TypeVar("T")


class Workspace:
    """Memory for images of one size, by name; each piece is made once and written over.

    Args:
        like: of the dtype and device to compute in.
        batch, height, width: of the images; P = batch·height·width pixels.
    """

    def __init__(self, like: Tensor, batch: int, height: int, width: int):
        self.like = like.new_empty(0)
        self.batch, self.height, self.width = batch, height, width
        self.pixels = batch * height * width
        self._pieces: dict[str, Any] = {}

    def get(self, name: str, make: Callable[[], T]) -> T:
        """The piece of that name, a tensor or several views."""
        if name not in self._pieces:
            self._pieces[name] = make()
        return cast(T, self._pieces[name])

    def rows(self, name: str, channels: int) -> Tensor:
        """(P, channels), with anything in it."""
        return self.get(name, lambda: self.like.new_empty(self.pixels, channels))

    def images(self, rows: Tensor) -> Tensor:
        """Rows (P, C) as images (batch, H, W, C), a view."""
        return rows.view(self.batch, self.height, self.width, rows.shape[1])

    def padded(self, channels: int, marked: bool = False) -> Tensor:
        """(batch, H + 2, W + 2, channels), zeros; where `marked`, the last channel is 1 all around."""
        padded = self.like.new_zeros(self.batch, self.height + 2, self.width + 2, channels)
        if marked:
            padded[..., -1] = 1
            padded[:, 1:-1, 1:-1, -1] = 0
        return padded
