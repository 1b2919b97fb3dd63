"""Partitions of a coupling's input into a kept and a changed part."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

__all__ = ["Checkerboard", "Halves", "OddEven", "Partition"]


class Partition(nn.Module, ABC):
    """Splits x into (kept, changed) and merges the two again.

    There are two kinds. *Cuts* give two smaller tensors. *Masks* give two tensors of full size, each with
    zeros at the positions of the other. `restrict` lets a coupling treat both kinds alike: for a mask, it
    sets the kept positions to zero.
    """

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Split x into (kept, changed)."""

    @abstractmethod
    def merge(self, kept: Tensor, changed: Tensor) -> Tensor:
        """Merge the two parts, the inverse of `split`."""

    def restrict(self, changed: Tensor) -> Tensor:
        """Set values shaped like `changed` to zero at the kept positions."""
        return changed

    def restrict_kept(self, kept: Tensor) -> Tensor:
        """Set values shaped like `kept` to zero at the changed positions."""
        return kept


class Halves(Partition):
    """Keeps the first half of the channels, or of a vector's entries, and changes the second half.

    With an odd number, the first half is the smaller one.

    Args:
        keep_first: Whether the first half is kept; otherwise the second half is kept and the first changed.
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
    """Keeps the odd entries of a vector and changes the even ones (NICE §5.1).

    Args:
        keep_odd: Whether entries 1, 3, 5, … are kept; otherwise they are changed, and 0, 2, 4, … are kept.
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
    """Keeps the pixels whose row + column is even and changes the others (RealNVP §3.4).

    Args:
        size: (H, W) of the images.
        keep_even: Whether the even pixels are kept; otherwise they are changed, and the odd ones are kept.
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
