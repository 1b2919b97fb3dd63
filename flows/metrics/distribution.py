"""Distances between sets of images without a pretrained network."""

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, unfold

PATCH, PATCHES, PROJECTIONS = 7, 64, 256


def sliced_wasserstein(first: Tensor, second: Tensor, seed: int = 0) -> dict[str, float]:
    """Sliced Wasserstein distance of local patches, per scale (PGGAN, Karras et al. 2018, section 5), × 1000.

    A Laplacian pyramid, 7×7 patches at every scale, each colour normalised over all patches of a set;
    the distance is the mean over random directions of the mean absolute difference of sorted projections.

    Args:
        first: uint8 (n, C, H, W).
        second: as many of the same shape.
        seed: of patches and directions.

    Returns:
        the side of every scale (`"32"`) to its distance, and `"mean"`.

    Raises:
        ValueError: the sets differ in shape.
    """
    if first.shape != second.shape:
        raise ValueError(f"expected as many images of the same shape, got {first.shape} and {second.shape}")
    generator = torch.Generator().manual_seed(seed)
    found = {}
    for a, b in zip(_pyramid(first), _pyramid(second), strict=True):
        rows = [_patches(level, generator) for level in (a, b)]
        directions = torch.randn(rows[0].shape[1], PROJECTIONS, generator=generator)
        directions = directions / directions.norm(dim=0)
        one, other = ((part @ directions).sort(0).values for part in rows)
        found[str(a.shape[2])] = 1000 * float((one - other).abs().mean())
    return {**found, "mean": sum(found.values()) / len(found)}


def _pyramid(images: Tensor) -> list[Tensor]:
    """Differences between scales, fine to coarse, and the coarsest (at least 8 pixels)."""
    level, found = images.float().cpu() / 255, []
    while level.shape[2] >= 16:
        smaller = avg_pool2d(level, 2)
        found.append(level - interpolate(smaller, scale_factor=2, mode="bilinear", align_corners=False))
        level = smaller
    return [*found, level]


def _patches(level: Tensor, generator: torch.Generator) -> Tensor:
    """(n · PATCHES, C · 49), random places, each colour with mean 0 and variance 1 over all."""
    windows = unfold(level, PATCH)  # (n, C · 49, places)
    chosen = torch.randint(windows.shape[2], (len(level), 1, PATCHES), generator=generator)
    rows = windows.gather(2, chosen.expand(-1, windows.shape[1], -1)).transpose(1, 2)
    colours = rows.reshape(-1, level.shape[1], PATCH**2)
    mean, deviation = colours.mean((0, 2), keepdim=True), colours.std((0, 2), keepdim=True)
    return ((colours - mean) / (deviation + 1e-6)).flatten(1)
