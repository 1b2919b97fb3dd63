"""Latent codes with their space and class labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from flows.errors import UserError

__all__ = ["Codes", "concatenate"]


class Placed(Protocol):
    """Model or tensor, which has a device and a precision."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters or values."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters or values."""
        ...


@dataclass(frozen=True)
class Codes:
    """Latent codes of n images.

        codes = model.encode_bytes(images)
        images = model.decode_bytes(codes[:8])

    Attributes:
        values: (n, D).
        space: Name of the latent space.
        labels: int64 (n,), class of each code for a class-conditional model; None for other models.

    Raises:
        UserError: `labels` is not int64 with one entry per code.
    """

    values: Tensor
    space: str
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        labels = self.labels
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != self.values.shape[:1]):
            raise UserError(
                f"labels: expected int64 ({len(self.values)},), one per code; got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: int | slice | Tensor | Sequence[int]) -> "Codes":
        """Select codes by a number, a slice, indices or a boolean mask; the result is always a batch."""
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"there is no code number {rows} among {len(self)}")
            rows = slice(rows % len(self), rows % len(self) + 1)
        if isinstance(rows, slice):
            labels = None if self.labels is None else self.labels[rows]
            return replace(self, values=self.values[rows], labels=labels)
        chosen = rows if isinstance(rows, Tensor) else torch.tensor(rows, dtype=torch.long)
        labels = None if self.labels is None else self.labels[chosen.to(self.labels.device)]
        return replace(self, values=self.values[chosen.to(self.values.device)], labels=labels)

    def split(self, size: int) -> Iterator["Codes"]:
        """Iterate over the codes in batches of `size`."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, like: "Tensor | Placed | torch.device | str") -> "Codes":
        """Move the codes to a device, or to the device and precision of a model or tensor."""
        if isinstance(like, torch.device | str):
            device, dtype = torch.device(like), self.values.dtype
        else:
            device, dtype = like.device, like.dtype
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, values=self.values.to(device, dtype), labels=labels)

    def cpu(self) -> "Codes":
        """Move the codes to the host."""
        return self.to("cpu")

    def with_values(self, values: Tensor) -> "Codes":
        """Replace the values; space and labels stay the same."""
        return replace(self, values=values)

    def repeat(self, times: int) -> "Codes":
        """Repeat the whole sequence of codes `times` times."""
        return concatenate([self] * times)


def concatenate(parts: Sequence[Codes]) -> Codes:
    """Concatenate codes of one space.

    Raises:
        UserError: There are no codes, they are in different spaces, or only some have labels.
    """
    spaces = sorted({part.space for part in parts})
    if len(spaces) != 1:
        raise UserError(f"expected codes of one space, got {', '.join(spaces) or 'none'}")
    labels = [part.labels for part in parts if part.labels is not None]
    if len(labels) not in (0, len(parts)):
        raise UserError("expected labels of all codes or of none, got labels of some")
    values = torch.cat([part.values for part in parts])
    return Codes(values, spaces[0], torch.cat(labels) if labels else None)
