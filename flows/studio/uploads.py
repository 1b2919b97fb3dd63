"""Opening of uploaded files, with limits and clear errors."""

import warnings
from pathlib import Path

from PIL import Image

from flows.data.decode import decode, named
from flows.images import flatten

LARGEST = 40_000_000
"""Maximum number of pixels of an upload, read from the file header before decoding."""
LARGEST_SIDE = 1600
"""Maximum side of the stored upload, in pixels; larger pictures are reduced."""


def open_upload(path: str | Path) -> Image.Image:
    """Open a picture file, upright, flattened over white, in RGB; of an animation, the first frame.

    Raises:
        UserError: The file is no picture, damaged, too large, or has more than 8 bits per channel.
    """
    with named(Path(path).name), warnings.catch_warnings():
        # Pillow warns of pictures that are refused by their size.
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        decoded = decode(path, LARGEST, (LARGEST_SIDE, LARGEST_SIDE))
    picture = flatten(decoded, 3)
    picture.thumbnail((LARGEST_SIDE, LARGEST_SIDE), Image.Resampling.LANCZOS)
    return picture
