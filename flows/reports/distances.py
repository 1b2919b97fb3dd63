"""Distances between samples and test images, with the distance between test images as reference."""

import math
from collections.abc import Callable
from typing import Any

from torch import Tensor

from flows.errors import DataMissing
from flows.metrics.distribution import sliced_wasserstein
from flows.metrics.perceptual import EfficientNetLite0, embed, kernel_distance
from flows.metrics.protocols import protocol

IMAGES, FEWEST = 2000, 500
"""Maximum number of test images per half, and minimum number per half for KID."""
HALVES = "halves"
"""End of the names of figures between two halves of the test images."""


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
        temperatures: Sampling temperatures.

    Returns:
        Names of the protocols with their values (`metrics`), the name of the `network` and the number of
        `images` per half; or only `missing`, the reason why KID was not computed.
    """
    if len(first) < FEWEST:
        return {"missing": f"{len(first)} test images per half, at least {FEWEST} are needed"}
    try:
        network = EfficientNetLite0()
    except DataMissing as error:
        return {"missing": str(error)}
    real, n = embed(network, first), len(first)
    metrics = {
        protocol("kid", n, network.short, temperature): kernel_distance(
            real, embed(network, sample(temperature))
        )
        for temperature in temperatures
    }
    metrics[f"{protocol('kid', n, network.short)}_{HALVES}"] = kernel_distance(real, embed(network, second))
    return {"network": network.name, "images": n, "metrics": metrics}


def kid_of(found: dict[str, Any], end: str = "t1") -> float:
    """KID in a result of `kid_to`: at a temperature, `t1`, or between test halves, `halves`."""
    return float(next(value for name, value in found["metrics"].items() if name.endswith(f"_{end}")))


def kid_line(found: dict[str, Any]) -> str:
    """Sentence that describes the result of `kid_to`."""
    if "missing" in found:
        return f"KID: {found['missing']}."
    metrics = dict(found["metrics"])
    halves = next(name for name in metrics if name.endswith(f"_{HALVES}"))
    between = metrics.pop(halves)
    values = ", ".join(f"{value:.3f} (`{name}`)" for name, value in metrics.items())
    return (
        f"KID by {found['network']}, {found['images']:,} images: {values}. Between two halves of the test "
        f"images: {between:.3f} (`{halves}`)."
    )
