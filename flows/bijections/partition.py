"""How a coupling divides its input into a part it keeps and a part it changes."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn


class Partition(nn.Module, ABC):
    """Divides x into (kept, changed) and puts the two back together.

    Two kinds exist: *cuts*, which give two smaller tensors, and *masks*, which give two tensors of full
    size with zeros at the other's places. `restrict` makes the difference invisible to a coupling: for a
    mask it zeroes what belongs to the kept part.
    """

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(kept, changed)."""

    @abstractmethod
    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """The inverse of `split`."""

    def restrict(self, changed: Tensor) -> Tensor:
        """`changed`-shaped values, with zeros wherever the kept part stands."""
        return changed

    def restrict_kept(self, kept: Tensor) -> Tensor:
        """`kept`-shaped values, with zeros wherever the changed part stands."""
        return kept


class Halves(Partition):
    """Keep the first half of the channels (of a vector's entries) and change the second, or the reverse.

    With an odd number the first half is the smaller one.

    Args:
        keep_first: False keeps the second half and changes the first.
    """

    def __init__(self, keep_first: bool = True):
        super().__init__()
        self.keep_first = keep_first

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        first, second = x.tensor_split((x.shape[1] // 2,), 1)
        return (first, second) if self.keep_first else (second, first)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        return torch.cat([kept, changed] if self.keep_first else [changed, kept], 1)


class OddEven(Partition):
    """Keep the odd entries of a vector and change the even ones, or the reverse (NICE §5.1).

    Args:
        keep_odd: False keeps entries 0, 2, 4, … and changes 1, 3, 5, …
    """

    def __init__(self, keep_odd: bool = True):
        super().__init__()
        self.keep_odd = keep_odd

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        even, odd = x[:, 0::2], x[:, 1::2]
        return (odd, even) if self.keep_odd else (even, odd)

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        even, odd = (changed, kept) if self.keep_odd else (kept, changed)
        merged = kept.new_empty(kept.shape[0], even.shape[1] + odd.shape[1])
        merged[:, 0::2], merged[:, 1::2] = even, odd
        return merged


class Checkerboard(Partition):
    """Keep the pixels where row + column is even and change the others, or the reverse (RealNVP §3.4).

    Args:
        size: (H, W) of the images.
        keep_even: False keeps the odd pixels.
    """

    mask: Tensor

    def __init__(self, size: tuple[int, int], keep_even: bool = True):
        super().__init__()
        rows, columns = torch.arange(size[0])[:, None], torch.arange(size[1])
        even = (rows + columns) % 2 == 0
        self.register_buffer("mask", (even if keep_even else ~even).float()[None, None])

    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        kept = x * self.mask
        return kept, x - kept

    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        return kept + changed

    def restrict(self, changed: Tensor) -> Tensor:
        return changed * (1 - self.mask)

    def restrict_kept(self, kept: Tensor) -> Tensor:
        return kept * self.mask
