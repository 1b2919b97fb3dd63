"""Random flips and shifts of training images; the random numbers depend on seed and key."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flows.core.numerics import uniform_rows
from flows.training.settings import Augmentation


def augment(images: Tensor, kinds: Sequence[Augmentation], seed: int, keys: Sequence[int]) -> Tensor:
    """Augment uint8 images (batch, C, H, W), each with its own random numbers.

    `flip` mirrors left and right with probability ½ (RealNVP on CelebA and LSUN). `shift` translates by up to
    a tenth of each side and repeats the border (Glow on CIFAR-10).
    """
    if not kinds:
        return images
    flip, down, right = uniform_rows(seed, keys, (3,), torch.empty(0)).unbind(1)
    if "flip" in kinds:
        mirrored = (flip < 0.5).to(images.device)[:, None, None, None]
        images = torch.where(mirrored, images.flip(-1), images)
    if "shift" in kinds:
        images = _shift(images, down.to(images.device), right.to(images.device))
    return images


def _shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Translate by (2u − 1)/10 of each side, u in [0, 1), in whole pixels; the border is repeated."""
    batch, _, height, width = images.shape

    def sources(u: Tensor, side: int) -> Tensor:
        moved = ((2 * u - 1) * 0.1 * side).round().long()
        return (torch.arange(side, device=u.device) - moved[:, None]).clamp(0, side - 1)

    index = torch.arange(batch, device=images.device)[:, None, None]
    rows, columns = sources(down, height)[:, :, None], sources(right, width)[:, None, :]
    return images.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2).contiguous()
