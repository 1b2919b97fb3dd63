"""From picture files of any kind and size to the square uint8 images of a data set."""

import struct
import zipfile
import zlib
from collections.abc import Callable

import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from flows import images
from flows.data.base import Batch, Split
from flows.errors import UserError

EXTENSIONS = (
    ".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp",
)  # fmt: skip

# What Pillow and zipfile raise for files that are damaged or no pictures.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, zipfile.BadZipFile,
    Image.DecompressionBombError,
)  # fmt: skip


def square(picture: Image.Image, size: int, channels: int) -> Tensor:
    """A picture upright, over white, centre-cropped and resized: uint8 (channels, size, size)."""
    # Resizing needs colours, not palette entries, hence flat before fit_square.
    return images.from_pillow(images.fit_square(upright(picture, channels), size), channels)


def upright(picture: Image.Image, channels: int) -> Image.Image:
    """A picture as its EXIF says it stands, over white, grey for one channel, else RGB.

    Raises:
        ValueError: its pixels have more than 8 bits.
    """
    check_depth(picture)
    return images.flatten(ImageOps.exif_transpose(picture), channels)


def check_depth(picture: Image.Image) -> None:
    """Raise ValueError for pixels of more than 8 bits, which Pillow would clip and not scale."""
    if picture.mode.startswith(("I", "F")):
        raise UserError(f"expected 8-bit pixels, got Pillow's mode {picture.mode}")


def square_transform(size: int, channels: int) -> str:
    """What `square` does, for the record of a data set."""
    grey = ", grey" if channels == 1 else ""
    return f"centre-cropped to a square and resized to {size}×{size} (Lanczos){grey}"


def reason(error: Exception) -> str:
    """What is wrong with a file, without the object or path that Pillow names."""
    return "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)


class LazySplit(Split):
    """A split too large for memory, decoded when asked for.

    Args:
        decode: index to uint8 (C, H, W).
        labels: int64 (n,).
        attributes: uint8 (n, number of attributes) or None.
    """

    def __init__(self, decode: Callable[[int], Tensor], labels: Tensor, attributes: Tensor | None = None):
        self.decode = decode
        self.labels = labels
        self.attributes = attributes

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        keys = torch.as_tensor(indices)
        return self.batch(torch.stack([self.decode(i) for i in indices]), self.labels[keys], keys)
