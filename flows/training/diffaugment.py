"""DiffAugment (Zhao et al. 2020, arXiv 2006.10738): differentiable changes for real and drawn images."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

Change = Literal["colour", "translation", "cutout"]


def diffaugment(images: Tensor, changes: Sequence[Change], generator: torch.Generator) -> Tensor:
    """Random changes of images (batch, C, H, W) in [−1, 1], differentiable in the images.

    Args:
        images: real or generated.
        changes: which, in this order: `colour` (brightness ±½, saturation ×[0, 2], contrast ×[½, 1½]),
            `translation` (by up to an eighth of the side), `cutout` (a square of half the side).
        generator: of the changes.
    """
    for change in changes:
        images = _CHANGES[change](images, generator)
    return images


def _uniform(images: Tensor, generator: torch.Generator) -> Tensor:
    return torch.rand(len(images), 1, 1, 1, generator=generator).to(images)


def _colour(images: Tensor, generator: torch.Generator) -> Tensor:
    images = images + (_uniform(images, generator) - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * 2 * _uniform(images, generator)
    middle = images.mean((1, 2, 3), keepdim=True)
    return middle + (images - middle) * (0.5 + _uniform(images, generator))


def _translation(images: Tensor, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    far = max(1, round(height / 8)), max(1, round(width / 8))
    down, right = (torch.randint(-reach, reach + 1, (batch,), generator=generator) for reach in far)
    rows = torch.arange(height) + far[0] + down.unsqueeze(1)
    columns = torch.arange(width) + far[1] + right.unsqueeze(1)
    padded = pad(images, (far[1], far[1], far[0], far[0])).permute(0, 2, 3, 1)
    which = torch.arange(batch)[:, None, None]
    return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _cutout(images: Tensor, generator: torch.Generator) -> Tensor:
    batch, _, height, width = images.shape
    middle_row = torch.randint(height + 1, (batch, 1, 1), generator=generator)
    middle_column = torch.randint(width + 1, (batch, 1, 1), generator=generator)
    rows, columns = torch.arange(height)[:, None], torch.arange(width)[None, :]
    inside = ((rows - middle_row).abs() < height // 4) & ((columns - middle_column).abs() < width // 4)
    return images * (~inside).unsqueeze(1).to(images)


_CHANGES: dict[Change, Callable[[Tensor, torch.Generator], Tensor]] = {
    "colour": _colour,
    "translation": _translation,
    "cutout": _cutout,
}
