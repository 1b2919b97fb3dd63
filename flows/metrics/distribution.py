"""Distances between sets of images that need no pretrained network."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, unfold

from flows.errors import UserError
from flows.images import size_text

__all__ = ["sliced_wasserstein"]

PATCH, PATCHES, PROJECTIONS = 7, 64, 256


def sliced_wasserstein(first: Tensor, second: Tensor, seed: int = 0) -> dict[str, float]:
    """Sliced Wasserstein distance of local patches, per scale (PGGAN, Karras et al. 2018, section 5), × 1000.

    Patches of 7×7 pixels are taken from every scale of a Laplacian pyramid, each colour normalised over all
    patches of a set. The distance is the mean over random directions of the mean absolute difference of
    sorted projections.

    Args:
        first: uint8 (n, C, H, W), first set.
        second: uint8 (n, C, H, W), second set.
        seed: Seed of patches and directions.

    Returns:
        Side of every scale, such as `"32"`, or width×height if the images are not square, such as `"64×48"`,
        to the distance at this scale, and their `"mean"`.

    Raises:
        UserError: The sets differ in shape.
    """
    if first.shape != second.shape:
        raise UserError(f"expected two sets of the same shape, got {first.shape} and {second.shape}")
    generator = torch.Generator().manual_seed(seed)
    distances = {}
    for a, b in zip(_pyramid(first), _pyramid(second), strict=True):
        rows = [_patches(level, generator) for level in (a, b)]
        directions = torch.randn(rows[0].shape[1], PROJECTIONS, generator=generator)
        directions = directions / directions.norm(dim=0)
        one, other = ((part @ directions).sort(0).values for part in rows)
        height, width = a.shape[2:]
        scale = str(height) if height == width else size_text(height, width)
        distances[scale] = 1000 * float((one - other).abs().mean())
    return {**distances, "mean": sum(distances.values()) / len(distances)}


def _pyramid(images: Tensor) -> list[Tensor]:
    """Laplacian pyramid: differences between scales, fine to coarse, and the coarsest (8 pixels or more)."""
    level, differences = images.float().cpu() / 255, []
    while min(level.shape[2:]) >= 16:
        smaller = avg_pool2d(level, 2)
        larger = interpolate(smaller, level.shape[2:], mode="bilinear", align_corners=False)
        differences.append(level - larger)
        level = smaller
    return [*differences, level]


def _patches(level: Tensor, generator: torch.Generator) -> Tensor:
    """Random patches, (n · PATCHES, C · 49), each colour with mean 0 and variance 1 over all of them."""
    windows = unfold(level, PATCH)  # (n, C · 49, places)
    chosen = torch.randint(windows.shape[2], (len(level), 1, PATCHES), generator=generator)
    rows = windows.gather(2, chosen.expand(-1, windows.shape[1], -1)).transpose(1, 2)
    colours = rows.reshape(-1, level.shape[1], PATCH**2)
    mean, deviation = colours.mean((0, 2), keepdim=True), colours.std((0, 2), keepdim=True)
    return ((colours - mean) / (deviation + 1e-6)).flatten(1)
