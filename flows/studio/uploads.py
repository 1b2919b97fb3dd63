"""Files that people bring: opened with care, and refused in a sentence."""

import warnings
from pathlib import Path

from PIL import Image

from flows.data.decode import BROKEN, reason, upright
from flows.errors import UserError

LARGEST = 40_000_000
"""Pixels of an upload, at most; told by its head, before anything is decoded."""
KEPT = 1600
"""Longer side of what is kept of an upload, in pixels."""


def open_upload(path: str | Path) -> Image.Image:
    """A picture file upright, over white, in RGB; the first picture of an animation.

    Raises:
        ValueError: it is no picture, damaged, too large, or of more than 8 bits.
    """
    name = Path(path).name
    try:
        with warnings.catch_warnings():
            # Pillow warns of what is refused here by size.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as opened:
                if opened.width * opened.height > LARGEST:
                    size = f"{opened.width}×{opened.height}"
                    raise UserError(f"{size} pixels, expected at most {LARGEST // 1_000_000} million")
                opened.draft("RGB", (KEPT, KEPT))
                picture = upright(opened, 3)
    except BROKEN as error:
        raise UserError(f"{name} cannot be opened: {reason(error)}") from error
    picture.thumbnail((KEPT, KEPT), Image.Resampling.LANCZOS)
    return picture
