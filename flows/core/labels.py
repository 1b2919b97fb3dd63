"""Class labels that public functions accept."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flows.errors import UserError

LabelsLike = Tensor | np.ndarray | Sequence[int]
"""Class labels that the public functions accept; see `as_labels`."""


def as_labels(labels: LabelsLike) -> Tensor:
    """Convert integers in a list, array or tensor (n,) to int64 labels; a tensor stays on its device.

    Raises:
        UserError: The values are not integers, or have more or fewer than one axis.
    """
    expected = "labels: expected integers, one per code or image"
    try:
        found = labels if isinstance(labels, Tensor) else torch.as_tensor(np.array(labels))
    except (TypeError, ValueError) as error:
        raise UserError(f"{expected}, got {labels!r}") from error
    integers = not (found.is_floating_point() or found.is_complex() or found.dtype == torch.bool)
    if found.dim() != 1 or not (integers or not len(found)):
        raise UserError(f"{expected}; got {found.dtype} {tuple(found.shape)}")
    return found.to(torch.int64)
