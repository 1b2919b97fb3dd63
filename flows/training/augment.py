"""Random changes of training images and their masks; the random numbers depend on seed and key."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import grid_sample

from flows.core.numerics import combine_seeds, uniform_rows
from flows.training.settings import Augmentation

SHIFT = 0.1
"""Largest shift, as a share of the side."""
SMALLEST = 0.8
"""Smallest crop of `zoom`, as a share of the side."""
BRIGHTER = 0.2
"""Largest change of `brightness`, as a share of the values."""


class Augmented(NamedTuple):
    """Augmented images, uint8 (batch, C, H, W), and their masks, uint8 (batch, H, W), or None."""

    images: Tensor
    masks: Tensor | None


def augment(
    images: Tensor,
    kinds: Sequence[Augmentation],
    seed: int,
    keys: Sequence[int],
    masks: Tensor | None = None,
) -> Augmented:
    """Augment images, each with its own random numbers, and their masks in the same way.

    `flip` mirrors left and right with probability ½ (RealNVP on CelebA and LSUN). `shift` translates by up to
    a tenth of each side and repeats the border (Glow on CIFAR-10). `zoom` crops to 80 to 100 % of both sides
    and resizes back, bilinear. `brightness` multiplies all values by 0.8 to 1.2.

    Args:
        images: uint8 (batch, C, H, W).
        kinds: Changes, applied in the order above.
        seed: Seed of the random numbers.
        keys: Key of each image.
        masks: uint8 (batch, H, W); None if there are none.
    """
    if not kinds:
        return Augmented(images, masks)
    flip, down, right = uniform_rows(seed, keys, (3,), torch.empty(0)).to(images.device).unbind(1)
    parts = [images] if masks is None else [images, masks[:, None]]
    if "flip" in kinds:
        mirrored = (flip < 0.5)[:, None, None, None]
        parts = [torch.where(mirrored, part.flip(-1), part) for part in parts]
    if "shift" in kinds:
        parts = [_shift(part, down, right) for part in parts]
    # The others have random numbers of their own, so that a flip is the same with and without them.
    scale, top, left, light = (
        uniform_rows(combine_seeds(seed, 1), keys, (4,), torch.empty(0)).to(images.device).unbind(1)
    )
    if "zoom" in kinds:
        window = _window(scale, top, left)
        parts = [_zoom(part, window, smooth=i == 0) for i, part in enumerate(parts)]
    if "brightness" in kinds:
        factor = (1 + BRIGHTER * (2 * light - 1))[:, None, None, None]
        parts[0] = (parts[0] * factor).round().clamp(0, 255).to(torch.uint8)
    return Augmented(parts[0], None if masks is None else parts[1][:, 0])


def _shift(images: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """Translate by (2u − 1)·SHIFT of each side, u in [0, 1), in whole pixels; the border is repeated."""
    batch, _, height, width = images.shape

    def sources(u: Tensor, side: int) -> Tensor:
        moved = ((2 * u - 1) * SHIFT * side).round().long()
        return (torch.arange(side, device=u.device) - moved[:, None]).clamp(0, side - 1)

    index = torch.arange(batch, device=images.device)[:, None, None]
    rows, columns = sources(down, height)[:, :, None], sources(right, width)[:, None, :]
    return images.permute(0, 2, 3, 1)[index, rows, columns].permute(0, 3, 1, 2).contiguous()


def _window(scale: Tensor, top: Tensor, left: Tensor) -> Tensor:
    """Affine maps (batch, 2, 3) from the output to a crop of random size and place, in units of ½ side."""
    side = SMALLEST + (1 - SMALLEST) * scale
    zero = torch.zeros_like(side)
    rows = [
        torch.stack([side, zero, (1 - side) * (2 * left - 1)], 1),
        torch.stack([zero, side, (1 - side) * (2 * top - 1)], 1),
    ]
    return torch.stack(rows, 1)


def _zoom(images: Tensor, window: Tensor, smooth: bool) -> Tensor:
    """Resize crops back to the side: bilinear, or by the nearest pixel for masks."""
    grid = torch.nn.functional.affine_grid(window, list(images.shape), align_corners=False)
    mode = "bilinear" if smooth else "nearest"
    resized = grid_sample(images.float(), grid, mode=mode, padding_mode="border", align_corners=False)
    return resized.round().clamp(0, 255).to(torch.uint8)
