"""Rendering of factors to images and class masks."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from flows.data.scenes.canvas import CLASS, Point, Raster
from flows.data.scenes.factors import CATEGORIES, COLUMN, NAMES
from flows.data.scenes.indoor import draw_room
from flows.data.scenes.outdoor import draw_church
from flows.errors import UserError


class Rendered(NamedTuple):
    """Rendered scenes.

    Attributes:
        images: uint8 (n, 3, size, size).
        masks: uint8 (n, size, size), indices of `canvas.CLASSES`.
        factors: float32 (n, number of factors), factors of the scenes.
    """

    images: NDArray[np.uint8]
    masks: NDArray[np.uint8]
    factors: NDArray[np.float32]


def render(factors: NDArray[np.float32], size: int = 32) -> Rendered:
    """Render scenes; each depends on its own factors alone.

    Args:
        factors: (n, number of factors), columns of `factors.FACTORS`.
        size: Side of the images in pixels, at least 16.

    Raises:
        UserError: Wrong number of columns, unknown category, or `size` below 16.
    """
    if factors.ndim != 2 or factors.shape[1] != len(NAMES):
        raise UserError(f"factors: expected (n, {len(NAMES)}), got {factors.shape}")
    categories = factors[:, COLUMN["category"]]
    if len(factors) and not np.isin(categories, np.arange(len(CATEGORIES))).all():
        raise UserError(f"factors: category is an index of {CATEGORIES}, got {sorted(set(categories))}")
    if size < 16:
        raise UserError(f"size: expected at least 16 pixels, got {size}")
    images = np.empty((len(factors), 3, size, size), dtype=np.uint8)
    masks = np.empty((len(factors), size, size), dtype=np.uint8)
    for row, image, mask in zip(factors, images, masks, strict=True):
        image[:], mask[:] = _render(dict(zip(NAMES, row.tolist(), strict=True)), size)
    return Rendered(images, masks, factors)


def _render(values: dict[str, float], size: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    canvas = Raster(size)
    category = CATEGORIES[int(values["category"])]
    lamp = None
    if category == "church":
        draw_church(canvas, values)
    else:
        lamp = draw_room(canvas, values, category)
    mask = canvas.mask()
    light = _light(values, size, lamp)
    luminous = canvas.share_of("sky", "cloud", *(["lamp"] if lamp else []))[..., None]
    albedo = _aged(canvas.picture(), values["ageing"], size)
    image = albedo * (luminous + (1 - luminous) * light)
    image *= _warmth(values["warmth"])
    if values["banner"]:
        _banner(image, mask, values["banner_place"], size)
    return np.clip(np.rint(255 * image), 0, 255).astype(np.uint8).transpose(2, 0, 1), mask


# Light and ageing ---------------------------------------------------------------------------------

NIGHT, DAY = np.array([0.4, 0.42, 0.54], np.float32), np.array([1.0, 1.0, 1.0], np.float32)
GLOW = np.array([1.0, 0.78, 0.42], np.float32)


def _places(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Coordinates y (size, 1) and x (1, size) of the pixel centres."""
    centres = ((np.arange(size) + 0.5) / size).astype(np.float32)
    return centres[:, None], centres[None, :]


def _light(values: dict[str, float], size: int, lamp: tuple[Point, float] | None) -> NDArray[np.float32]:
    """Light on every pixel, daylight and the lamp's glow: (size, size, 3)."""
    day = np.float32(values["daylight"])
    light = np.broadcast_to(NIGHT + (DAY - NIGHT) * day, (size, size, 3)).astype(np.float32)
    if lamp is not None:
        (x0, y0), reach = lamp
        y, x = _places(size)
        falling = np.exp(-((x - np.float32(x0)) ** 2 + (y - np.float32(y0)) ** 2) / np.float32(reach**2))
        light = light + falling[..., None] * GLOW * (np.float32(0.62) - np.float32(0.32) * day)
    return light


def _aged(albedo: NDArray[np.float32], ageing: float, size: int) -> NDArray[np.float32]:
    """Fade colours towards brown and add blotches."""
    if ageing <= 0:
        return albedo
    share = np.float32(ageing)
    grey = albedo @ np.array([0.3, 0.59, 0.11], np.float32)
    faded = grey[..., None] * np.array([1.0, 0.88, 0.66], np.float32)
    y, x = _places(size)
    blotches = np.sin(19 * x + 7 * y) * np.sin(11 * x - 17 * y) + np.sin(29 * y + 5 * x) * np.sin(23 * x)
    stain = 1 - share * np.float32(0.12) * np.clip(blotches, 0, 1)
    return (albedo + np.float32(0.65) * share * (faded - albedo)) * stain[..., None]


def _warmth(warmth: float) -> NDArray[np.float32]:
    return np.array([1 + 0.14 * warmth, 1 + 0.02 * warmth, 1 - 0.16 * warmth], np.float32)


# The banner ---------------------------------------------------------------------------------------

_LETTERS = "10110111010110101110110101110101"


def _banner(image: NDArray[np.float32], mask: NDArray[np.uint8], place: float, size: int) -> None:
    """Blend a half-transparent strip with text-like marks over the image, in place."""
    height = max(3, round(0.16 * size))
    top = round((0.04 + 0.74 * place) * size)
    rows = slice(top, min(size, top + height))
    image[rows] = 0.45 * image[rows] + 0.55 * 0.92
    mask[rows] = CLASS["banner"]
    step = max(1, size // 32)
    inner = slice(top + max(1, height // 4), min(size, top + height - max(1, height // 4)))
    for i, letter in enumerate(_LETTERS[2:-2]):
        if letter == "1":
            x = (i + 2) * step
            image[inner, x : x + step] = 0.45 * image[inner, x : x + step] + 0.55 * 0.12
