"""Pictures that occur twice in a data set: exactly, or nearly, by perceptual hashes."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from flows import images as pixels
from flows.errors import missing_extra

NEAR_BITS = 6
"""Largest number of bits, of 64, in which the hashes of nearly equal pictures differ."""
NEAR_LEVELS = 10.0
"""Largest mean difference of nearly equal pictures, in grey levels of 255."""
BLOCK = 1000
"""Number of pictures that are compared with all others at a time."""


def exact_groups(images: Tensor) -> list[list[int]]:
    """Groups of images with the same pixels, uint8 (n, C, H, W): indices, in their order."""
    found: dict[bytes, list[int]] = {}
    for i, image in enumerate(images.numpy()):
        found.setdefault(image.tobytes(), []).append(i)
    return [group for group in found.values() if len(group) > 1]


def near_pairs(images: Tensor) -> list[tuple[int, int]]:
    """Pairs of images that are nearly equal and not equal: another size or compression of one picture.

    Their perceptual hashes (pHash: signs of the lowest frequencies of a cosine transform) differ in at most
    `NEAR_BITS` bits, and their pixels by `NEAR_LEVELS` on average. Hashes alone confuse plain pictures.

    Args:
        images: uint8 (n, C, H, W).

    Raises:
        DataMissing: `imagehash` is not installed.
    """
    hashes = perceptual_hashes(images)
    flat = images.flatten(1)
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(images), BLOCK):
        different = np.bitwise_count(hashes[start : start + BLOCK, None] ^ hashes[None, start:])
        for i, j in zip(*np.nonzero(different <= NEAR_BITS), strict=True):
            first, second = start + int(i), start + int(j)
            if first >= second:
                continue
            difference = (flat[first].float() - flat[second].float()).abs().mean()
            if 0 < difference <= NEAR_LEVELS:
                pairs.append((first, second))
    return pairs


def perceptual_hashes(images: Tensor) -> np.ndarray:
    """Perceptual hash of each image, uint64 (n,)."""
    try:
        from imagehash import phash
    except ImportError as error:
        raise missing_extra("near duplicates need the package imagehash", "photos", error) from error
    bits = np.stack([phash(pixels.to_pillow(image)).hash.flatten() for image in images])
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


def across_splits(groups: Sequence[Sequence[int]], splits: Sequence[str]) -> list[list[int]]:
    """Groups whose images are in more than one split: what a model has learnt is then asked of it."""
    return [list(group) for group in groups if len({splits[i] for i in group}) > 1]


def joined(n: int, pairs: Sequence[tuple[int, int]], groups: Sequence[Sequence[int]]) -> Tensor:
    """Number of the family of each of n images, int64 (n,): those that are connected by pairs and groups."""
    family = torch.arange(n)
    links = [*pairs, *((group[0], other) for group in groups for other in group[1:])]
    for first, second in links:
        old, new = int(family[second]), int(family[first])
        if old != new:
            family[family == old] = new
    return family
