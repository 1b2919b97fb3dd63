"""Distances between samples and test images, with the distance between test images as reference."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from flows.errors import DataMissing
from flows.metrics.distribution import sliced_wasserstein
from flows.metrics.perceptual import EfficientNetLite0, embed, kernel_distance

IMAGES, FEWEST = 2000, 500
"""Maximum number of test images per half, and minimum number per half for KID."""


def halves_of(test: Tensor) -> tuple[Tensor, Tensor]:
    """Split test images (n, C, H, W), or their labels, into two disjoint halves of equal size."""
    half = len(test) // 2
    return test[:half], test[half : 2 * half]


def swd_to(first: Tensor, second: Tensor, generated: Tensor) -> dict[str, Any]:
    """Sliced Wasserstein distances, per scale, of half of the test images to samples and the other half.

    The means alone, unknown (NaN), if the halves are empty.
    """
    if not len(first):
        unknown = {"mean": math.nan}
        return {"samples": unknown, "between test halves": unknown, "images": 0}
    return {
        "samples": sliced_wasserstein(first, generated),
        "between test halves": sliced_wasserstein(first, second),
        "images": len(first),
    }


def kid_to(
    first: Tensor, second: Tensor, sample: Callable[[float], Tensor], temperatures: tuple[float, ...] = (1.0,)
) -> dict[str, Any]:
    """KID between half of the test images and samples, and between both halves.

    Args:
        first: uint8 (n, C, H, W), half of the test images.
        second: uint8 (n, C, H, W), the other half.
        sample: Function from a temperature to samples, uint8 (n, C, H, W).
        temperatures: Sampling temperatures; 1 must be among them.

    Returns:
        KID at temperature 1 (`samples`), at every temperature (`temperatures`) and `between test halves`, the
        name of the `network` and the number of `images` per half; or only `missing`, the reason why KID was
        not computed.
    """
    if len(first) < FEWEST:
        return {"missing": f"{len(first)} test images per half, at least {FEWEST} are needed"}
    try:
        network = EfficientNetLite0()
    except DataMissing as error:
        return {"missing": str(error)}
    real = embed(network, first)
    distances = {t: kernel_distance(real, embed(network, sample(t))) for t in temperatures}
    return {
        "network": network.name,
        "samples": distances[1.0],
        "temperatures": {f"{temperature:g}": value for temperature, value in distances.items()},
        "between test halves": kernel_distance(real, embed(network, second)),
        "images": len(first),
    }


def kid_line(found: dict[str, Any]) -> str:
    """Sentence that describes the result of `kid_to`."""
    if "missing" in found:
        return f"KID: {found['missing']}."
    values = ", ".join(f"{value:.3f} at temperature {name}" for name, value in found["temperatures"].items())
    return (
        f"KID ({found['network']}, {found['images']:,} images): {values}. Between two halves of the test "
        f"images: {found['between test halves']:.3f}."
    )
