"""Opening of uploaded files, with limits and clear errors."""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from flows.core.schema import read_json
from flows.data.decode import decode, named
from flows.errors import UserError
from flows.images import flatten
from flows.storage.versioned import read_metadata

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


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Context that names an uploaded file as the visitor does, without the folder of the server."""
    try:
        yield
    except UserError as error:
        raise type(error)(str(error).replace(str(path), path.name)) from error


def read_owner(path: str | Path) -> tuple[str, str] | None:
    """Class and fingerprint of the model that a record or code file belongs to; None if it states none."""
    metadata = read_metadata(path)
    headers = [metadata, *(json_object(metadata.get(name, "")) for name in ("history", "record"))]
    for header in headers:
        if "fingerprint" in header:
            return str(header.get("model_type", "")), str(header["fingerprint"])
    return None


def json_object(text: str) -> Mapping[str, Any]:
    """Object of a text of JSON; empty if it is none."""
    try:
        value = read_json(text)
    except UserError:
        return {}
    return value if isinstance(value, dict) else {}
