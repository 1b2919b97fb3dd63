"""Supersampled canvas on which an image and its class mask are drawn together."""

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Point = tuple[float, float]
Colour = tuple[float, float, float]
OVERSAMPLING = 3

CLASSES = (
    "wall", "floor", "ceiling", "window", "door", "bed", "sofa", "table", "lamp", "picture", "plant", "rug",
    "counter", "sky", "ground", "church", "tower", "tree", "cloud", "person", "vehicle", "banner",
)  # fmt: skip
"""Class names; the values of a mask are their indices."""
CLASS = {name: i for i, name in enumerate(CLASSES)}


class Raster:
    """Image and class mask that are drawn together.

    Coordinates are (x, y) in [0, 1] from the top left; colours are RGB in [0, 1].

    Args:
        size: Side of the image in pixels.
    """

    def __init__(self, size: int):
        self.size = size
        self.side = size * OVERSAMPLING
        self._picture = Image.new("RGB", (self.side, self.side))
        self._mask = Image.new("L", (self.side, self.side))
        self._draw, self._label = ImageDraw.Draw(self._picture), ImageDraw.Draw(self._mask)

    def polygon(self, points: Sequence[Point], colour: Colour, of: str | None) -> None:
        """Draw a filled polygon of class `of`; None leaves the class mask unchanged."""
        scaled = [(x * self.side, y * self.side) for x, y in points]
        self._draw.polygon(scaled, _bytes(colour))
        if of is not None:
            self._label.polygon(scaled, CLASS[of])

    def box(self, x0: float, y0: float, x1: float, y1: float, colour: Colour, of: str | None) -> None:
        """Draw a filled, axis-aligned rectangle."""
        self.polygon([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], colour, of)

    def ellipse(self, x: float, y: float, rx: float, ry: float, colour: Colour, of: str | None) -> None:
        """Draw a filled ellipse with centre (x, y) and radii rx, ry."""
        bounds = [self.side * value for value in (x - rx, y - ry, x + rx, y + ry)]
        self._draw.ellipse(bounds, _bytes(colour))
        if of is not None:
            self._label.ellipse(bounds, CLASS[of])

    def line(self, points: Sequence[Point], colour: Colour, width: float, of: str | None = None) -> None:
        """Draw a line; `width` is a fraction of the side."""
        scaled = [(x * self.side, y * self.side) for x, y in points]
        pixels = max(1, round(width * self.side))
        self._draw.line(scaled, _bytes(colour), pixels)
        if of is not None:
            self._label.line(scaled, CLASS[of], pixels)

    def picture(self) -> NDArray[np.float32]:
        """Return the anti-aliased image, (size, size, 3), in [0, 1]."""
        return np.asarray(self._picture.reduce(OVERSAMPLING), dtype=np.float32) / np.float32(255)

    def mask(self) -> NDArray[np.uint8]:
        """Return the class at the centre of every pixel, (size, size)."""
        centre = OVERSAMPLING // 2
        return np.asarray(self._mask)[centre::OVERSAMPLING, centre::OVERSAMPLING].copy()

    def share_of(self, *classes: str) -> NDArray[np.float32]:
        """Return the fraction of every pixel that belongs to these classes, (size, size), in [0, 1]."""
        table = [255 if value in [CLASS[name] for name in classes] else 0 for value in range(256)]
        chosen = self._mask.point(table).reduce(OVERSAMPLING)
        return np.asarray(chosen, dtype=np.float32) / np.float32(255)


def _bytes(colour: Colour) -> tuple[int, int, int]:
    red, green, blue = (max(0, min(255, round(255 * value))) for value in colour)
    return red, green, blue


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Return the colour of hue, saturation and value, each in [0, 1]."""
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def shade(colour: Colour, factor: float) -> Colour:
    """Multiply the brightness of a colour by a factor."""
    red, green, blue = colour
    return red * factor, green * factor, blue * factor


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Interpolate from the first colour (share 0) to the second (share 1)."""
    red, green, blue = ((1 - share) * a + share * b for a, b in zip(first, second, strict=True))
    return red, green, blue


def between(value: float, low: float, high: float) -> float:
    """Interpolate from `low` (value 0) to `high` (value 1)."""
    return low + (high - low) * value
