"""How far samples are from the test images, beside how far those are from one another."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from flows.errors import DataMissing
from flows.metrics.distribution import sliced_wasserstein
from flows.metrics.perceptual import EfficientNetLite0, embed, kernel_distance

IMAGES, FEWEST = 2000, 500
"""Test images taken for each half at most, and the fewest of which KID says anything."""


def halves_of(test: Tensor) -> tuple[Tensor, Tensor]:
    """Two sets of equally many different images (n, C, H, W)."""
    half = len(test) // 2
    return test[:half], test[half : 2 * half]


def swd_to(first: Tensor, second: Tensor, drawn: Tensor) -> dict[str, Any]:
    """Sliced Wasserstein distances by scale to half of the test images, of samples and of the other half."""
    return {
        "samples": sliced_wasserstein(first, drawn),
        "between test halves": sliced_wasserstein(first, second),
        "images": len(first),
    }


def kid_to(
    first: Tensor, second: Tensor, draw: Callable[[float], Tensor], temperatures: tuple[float, ...] = (1.0,)
) -> dict[str, Any]:
    """KID of samples to one half of the test images, and of the other half: uint8 (n, C, H, W) each.

    Args:
        first: half of the test images.
        second: the other half.
        draw: samples at a temperature.
        temperatures: at which; 1 is among them.

    Returns:
        `samples` at temperature 1, `temperatures` with every one, `between test halves`, and the network's
        name; or only `missing`, the reason why there is no figure.
    """
    if len(first) < FEWEST:
        return {"missing": f"{len(first)} images in each half of the test split say nothing"}
    try:
        network = EfficientNetLite0()
    except DataMissing as error:
        return {"missing": str(error)}
    real = embed(network, first)
    found = {each: kernel_distance(real, embed(network, draw(each))) for each in temperatures}
    return {
        "network": network.name,
        "samples": found[1.0],
        "temperatures": {f"{temperature:g}": value for temperature, value in found.items()},
        "between test halves": kernel_distance(real, embed(network, second)),
        "images": len(first),
    }


def kid_line(found: dict[str, Any]) -> str:
    """A sentence on the result of `kid_to`."""
    if "missing" in found:
        return f"KID: {found['missing']}."
    each = ", ".join(f"{value:.3f} at temperature {name}" for name, value in found["temperatures"].items())
    return (
        f"KID ({found['network']}, {found['images']:,} images): {each}; between two halves of the test "
        f"images {found['between test halves']:.3f}."
    )
