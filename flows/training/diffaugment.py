"""DiffAugment (Zhao et al. 2020, arXiv 2006.10738): differentiable augmentation for GANs."""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import pad

from flows.core.numerics import Keys, combine_seeds, uniform_rows

AugmentationName = Literal["colour", "translation", "cutout"]


def diffaugment(images: Tensor, changes: Sequence[AugmentationName], seed: int, keys: Keys) -> Tensor:
    """Augment images at random, differentiably.

    Args:
        images: (batch, C, H, W), real or generated images in [−1, 1].
        changes: Augmentations, applied in the given order: `colour` (brightness ±½, saturation ×[0, 2],
            contrast ×[½, 1½]), `translation` (by up to an eighth of each side), `cutout` (a rectangle of
            half of each side).
        seed: Seed of the random numbers.
        keys: Identity of every image; its augmentation depends only on the seed and its key.

    Returns:
        Augmented images of the same shape.
    """
    for number, change in enumerate(changes):
        chance = uniform_rows(combine_seeds(seed, number), keys, (3, 1, 1, 1), images)
        images = _CHANGES[change](images, chance)
    return images


# Every augmentation takes three random numbers in [0, 1) per image, (batch, 3, 1, 1, 1).


def _colour(images: Tensor, chance: Tensor) -> Tensor:
    brightness, saturation, contrast = chance.unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * 2 * saturation
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (0.5 + contrast)


def _translation(images: Tensor, chance: Tensor) -> Tensor:
    batch, _, height, width = images.shape
    far = max(1, round(height / 8)), max(1, round(width / 8))
    padded = pad(images, (far[1], far[1], far[0], far[0])).permute(0, 2, 3, 1)
    begin = [_integers(chance[:, i], 2 * reach + 1) for i, reach in enumerate(far)]
    rows, columns = (torch.arange(side, device=images.device) for side in (height, width))
    which = torch.arange(batch, device=images.device)[:, None, None]
    down, right = rows + begin[0], columns + begin[1]
    return padded[which, down[:, :, None], right[:, None, :]].permute(0, 3, 1, 2)


def _cutout(images: Tensor, chance: Tensor) -> Tensor:
    height, width = images.shape[2:]
    top = _integers(chance[:, 0], height + 1)[:, :, None] - height // 4
    left = _integers(chance[:, 1], width + 1)[:, :, None] - width // 4
    rows = torch.arange(height, device=images.device)[:, None]
    columns = torch.arange(width, device=images.device)[None, :]
    tall = (rows >= top) & (rows < top + height // 2)
    wide = (columns >= left) & (columns < left + width // 2)
    return images * (~(tall & wide)).unsqueeze(1).to(images)


def _integers(chance: Tensor, n: int) -> Tensor:
    """Map numbers in [0, 1), (batch, 1, 1, 1), to integers below n, (batch, 1)."""
    return (chance.flatten(1) * n).long().clamp(max=n - 1)


_CHANGES: dict[AugmentationName, Callable[[Tensor, Tensor], Tensor]] = {
    "colour": _colour,
    "translation": _translation,
    "cutout": _cutout,
}
