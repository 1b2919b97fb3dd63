"""Codes: latent codes with the space that they are in and the classes that they belong to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import torch
from torch import Tensor

from flows.errors import UserError


class Placed(Protocol):
    """A model or tensor, on a device and in a precision."""

    @property
    def device(self) -> torch.device:
        """Device of the parameters or values."""
        ...

    @property
    def dtype(self) -> torch.dtype:
        """Floating type of the parameters or values."""
        ...


@dataclass(frozen=True)
class Codes:
    """Latent codes of n images.

        codes = model.encode_bytes(images)
        images = model.decode_bytes(codes[:8])

    Attributes:
        values: (n, D).
        space: Name of the latent space.
        labels: int64 (n,), classes that a class-conditional model decodes them with; None for other models.

    Raises:
        UserError: The labels are not one integer per code.
    """

    values: Tensor
    space: str
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        labels = self.labels
        if labels is not None and (labels.dtype != torch.int64 or labels.shape != self.values.shape[:1]):
            raise UserError(
                f"labels: expected int64 ({len(self.values)},), one for each code; got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: slice | Tensor | Sequence[int]) -> "Codes":
        """Some of the codes, by a slice, numbers or a mask."""
        if isinstance(rows, slice):
            labels = None if self.labels is None else self.labels[rows]
            return replace(self, values=self.values[rows], labels=labels)
        chosen = torch.as_tensor(rows)
        labels = None if self.labels is None else self.labels[chosen.to(self.labels.device)]
        return replace(self, values=self.values[chosen.to(self.values.device)], labels=labels)

    def split(self, size: int) -> Iterator["Codes"]:
        """The codes in batches of `size`."""
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, like: "Tensor | Placed | torch.device | str") -> "Codes":
        """The codes on a device, or on the device and in the precision of a model or tensor."""
        if isinstance(like, torch.device | str):
            device, dtype = torch.device(like), self.values.dtype
        else:
            device, dtype = like.device, like.dtype
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, values=self.values.to(device, dtype), labels=labels)

    def cpu(self) -> "Codes":
        """The codes on the host."""
        return self.to("cpu")

    def with_values(self, values: Tensor) -> "Codes":
        """Other values in the same space, with the same labels."""
        return replace(self, values=values)

    def repeat(self, times: int) -> "Codes":
        """All codes, `times` times one after the other."""
        return concatenate([self] * times)


def concatenate(parts: Sequence[Codes]) -> Codes:
    """Codes of one space in one value.

    Raises:
        UserError: They are in several spaces.
    """
    first = parts[0]
    if any(part.space != first.space for part in parts):
        raise UserError(f"expected codes of one space, got {', '.join(sorted({p.space for p in parts}))}")
    labels = [part.labels for part in parts if part.labels is not None]
    joined = torch.cat(labels) if len(labels) == len(parts) else None
    return Codes(torch.cat([part.values for part in parts]), first.space, joined)
