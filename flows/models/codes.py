"""Latent codes with their space and class labels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from flows.core.checks import check_positive, some_of
from flows.core.labels import LabelsLike as LabelsLike
from flows.core.labels import as_labels as as_labels
from flows.errors import UserError

__all__ = ["Codes", "concatenate"]


Selection = int | slice | Tensor | np.ndarray | Sequence[int] | Sequence[bool]
"""Selections of codes: a number, a slice, indices or a boolean mask."""


def as_values(values: Tensor | np.ndarray) -> Tensor:
    """Convert an array (n, ...) to a tensor. Raises UserError unless its values are floating point."""
    found = torch.from_numpy(values) if isinstance(values, np.ndarray) else values
    if not isinstance(found, Tensor) or found.dim() < 2 or not found.is_floating_point():
        got = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(values).__name__
        raise UserError(f"codes: expected a floating-point tensor (n, D), got {got}")
    return found


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


@dataclass(frozen=True, eq=False)
class Codes:
    """Latent codes of n images.

        codes = model.encode_bytes(images)
        images = model.decode_bytes(codes[:8])

    Attributes:
        values: (n, D), floating point; the constructor takes an array too.
        space: Name of the latent space.
        labels: int64 (n,), class of each code for a class-conditional model; None for other models. The
            constructor takes integers in a list, array or tensor.

    Two objects are equal if they have the same space, precision, values and labels, on any device.

    Raises:
        UserError: `values` are no floating-point numbers (n, D), or `labels` is not one integer per code.
    """

    values: Tensor
    space: str
    labels: Tensor | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "values", as_values(self.values))
        if self.labels is None:
            return
        labels = as_labels(self.labels)
        if labels.shape != self.values.shape[:1]:
            raise UserError(
                f"labels: expected int64 ({len(self.values)},), one per code; got {labels.dtype} "
                f"{tuple(labels.shape)}"
            )
        object.__setattr__(self, "labels", labels)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Codes):
            return NotImplemented
        return (
            self.space == other.space
            and identical(self.values, other.values)
            and (self.labels is None) == (other.labels is None)
            and (self.labels is None or other.labels is None or identical(self.labels, other.labels))
        )

    def __hash__(self) -> int:
        return hash((self.space, tuple(self.values.shape)))

    def __repr__(self) -> str:
        """One line: `Codes(8 × 3072, space='z', float32, cpu)`, with the labels of the first codes."""
        shape = " × ".join(map(str, self.values.shape))
        kind, device = str(self.values.dtype).removeprefix("torch."), self.values.device
        labels = "" if self.labels is None else f", labels {some_of(list(map(str, self.labels.tolist())))}"
        return f"Codes({shape}, space={self.space!r}, {kind}, {device}{labels})"

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, rows: Selection) -> "Codes":
        """Select codes by a number, a slice, indices or a boolean mask; the result is always a batch.

        Raises:
            IndexError: There is no such code, or `rows` is none of these.
        """
        if not isinstance(rows, int | slice):
            rows = as_rows(rows)
        if isinstance(rows, int):
            if not -len(self) <= rows < len(self):
                raise IndexError(f"there is no code number {rows} among {len(self)}")
            rows = slice(rows % len(self), rows % len(self) + 1)
        if isinstance(rows, slice):
            labels = None if self.labels is None else self.labels[rows]
            return replace(self, values=self.values[rows], labels=labels)
        labels = None if self.labels is None else self.labels[rows.to(self.labels.device)]
        return replace(self, values=self.values[rows.to(self.values.device)], labels=labels)

    def split(self, size: int) -> Iterator["Codes"]:
        """Iterate over the codes in batches of `size`."""
        check_positive(size=size)
        return (self[start : start + size] for start in range(0, len(self), size))

    def to(self, like: "Tensor | Placed | torch.device | torch.dtype | str") -> "Codes":
        """Move the codes to a device or precision, or to both of a model or tensor.

        Raises:
            TypeError: `like` is none of these.
        """
        if isinstance(like, torch.device | str):
            device, dtype = torch.device(like), self.values.dtype
        elif isinstance(like, torch.dtype):
            device, dtype = self.values.device, like
        elif hasattr(like, "device") and hasattr(like, "dtype"):
            device, dtype = like.device, like.dtype
        else:
            raise TypeError(f"expected a device, a dtype, a model or a tensor, got {type(like).__name__}")
        labels = None if self.labels is None else self.labels.to(device)
        return replace(self, values=self.values.to(device, dtype), labels=labels)

    def cpu(self) -> "Codes":
        """Move the codes to the host."""
        return self.to("cpu")

    def check_finite(self, names: Sequence[str] = ()) -> None:
        """Raise UserError if a value is infinite or NaN.

        Args:
            names: One name per code, of which the message lists those of the codes concerned.
        """
        wrong = torch.nonzero(~self.values.isfinite().flatten(1).all(1))[:, 0].tolist()
        if wrong:
            who = some_of([names[i] for i in wrong]) if names else f"{len(wrong)} of {len(self)} codes"
            raise UserError(f"codes: expected finite values, got infinity or NaN in {who}")

    def check_alongside(self, other: "Codes") -> None:
        """Raise UserError unless other codes are in the same space, and as many as these or a single one."""
        if other.space != self.space:
            raise UserError(f"expected codes of space {self.space!r}, got {other.space!r}")
        if len(other) not in (1, len(self)) or other.values.shape[1:] != self.values.shape[1:]:
            shapes = tuple(self.values.shape), tuple(other.values.shape)
            raise UserError(f"expected codes of one shape, got {shapes[0]} and {shapes[1]}")

    def with_values(self, values: Tensor) -> "Codes":
        """Replace the values; space and labels stay the same."""
        return replace(self, values=values)

    def repeat(self, times: int) -> "Codes":
        """Repeat the whole sequence of codes `times` times."""
        return concatenate([self] * times)


def as_rows(rows: Tensor | np.ndarray | Sequence[int] | Sequence[bool]) -> int | Tensor:
    """Convert a selection to a number, int64 indices (k,) or a mask, bool (n,).

    Raises:
        IndexError: It has more than one axis, or values that are neither integers nor truth values.
    """
    try:
        chosen = rows if isinstance(rows, Tensor) else torch.as_tensor(np.array(rows))
    except (TypeError, ValueError) as error:
        raise IndexError(f"expected a number, a slice, indices or a mask, got {rows!r}") from error
    mask = chosen.dtype == torch.bool
    integers = not (mask or chosen.is_floating_point() or chosen.is_complex())
    if chosen.dim() > 1 or not (integers or (chosen.dim() and (mask or not len(chosen)))):
        raise IndexError(
            f"expected a number, a slice, indices or a mask, got {chosen.dtype} {tuple(chosen.shape)}"
        )
    if chosen.dim() == 0:
        return int(chosen)
    return chosen if mask else chosen.to(torch.int64)


def identical(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors have the same precision, shape and values, on any device."""
    return first.dtype == second.dtype and torch.equal(first.cpu(), second.cpu())


def check_codes(codes: object) -> None:
    """Raise UserError unless the argument is `Codes`."""
    if not isinstance(codes, Codes):
        raise UserError(f"expected Codes, got {type(codes).__name__}: Codes(values, space)")


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
    for part in parts[1:]:
        if part.values.shape[1:] != parts[0].values.shape[1:]:
            shapes = tuple(parts[0].values.shape), tuple(part.values.shape)
            raise UserError(f"expected codes of one model, got {shapes[0]} and {shapes[1]}")
    values = torch.cat([part.values for part in parts])
    return Codes(values, spaces[0], torch.cat(labels) if labels else None)
