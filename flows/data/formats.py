"""Formats of picture files: those of Pillow, and those that plug-ins read where they are installed."""

import importlib
import importlib.util
from functools import cache
from pathlib import Path, PurePath
from typing import IO

from PIL import Image

from flows.storage.files import StrPath

PILLOW = (
    ".apng", ".avif", ".bmp", ".gif", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpg", ".jpx", ".pbm",
    ".pgm", ".png", ".pnm", ".ppm", ".qoi", ".tga", ".tif", ".tiff", ".webp",
)  # fmt: skip
"""Suffixes of picture files; Pillow's other formats are documents, run other programs or have no pixels."""
RAW = (".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".pef", ".raf", ".rw2", ".srw")
"""Suffixes of raw photographs, which rawpy develops."""
WHOLE_SIZE = "whole_size"
"""Entry of a picture's `info` with the (width, height) of a raw photograph that is developed at half."""
PLUGINS: dict[str, tuple[str, str]] = {
    **dict.fromkeys((".heic", ".heif", ".hif"), ("pillow_heif", "pillow-heif")),
    ".jxl": ("pillow_jxl", "pillow-jxl-plugin"),
    **dict.fromkeys(RAW, ("rawpy", "rawpy")),
}
"""Suffixes of files that a package reads: its module and the name that it is installed by."""


@cache
def extensions() -> frozenset[str]:
    """Suffixes of the picture files that can be read here, in lower case."""
    return frozenset(PILLOW) | {suffix for suffix, (module, _) in PLUGINS.items() if is_installed(module)}


@cache
def is_installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None


def is_picture(name: str) -> bool:
    """Whether a relative name has the suffix of a picture that can be read here."""
    return suffix_of(name) in extensions()


def package_for(suffix: str) -> str:
    """Name of the package that reads files of a suffix and is not installed; empty if there is none."""
    module, package = PLUGINS.get(suffix, ("", ""))
    return package if module and not is_installed(module) else ""


def suffix_of(name: object) -> str:
    """Suffix of a file's name, in lower case."""
    return PurePath(str(name)).suffix.lower()


def open_picture(file: StrPath | IO[bytes], small: bool = False) -> Image.Image:
    """Open a picture file, of which only the header is read; a raw photograph is developed.

    Args:
        file: Path, or opened file with a `name` for raw photographs.
        small: Whether a raw photograph may be developed at half its size, in a quarter of the time.
    """
    suffix = suffix_of(getattr(file, "name", file))
    module, _ = PLUGINS.get(suffix, ("", ""))
    if module and is_installed(module):
        register(module)
        if module == "rawpy":
            return develop(file, small)
    return Image.open(file)


@cache
def register(module: str) -> None:
    """Import a plug-in, which makes its formats known to Pillow."""
    plugin = importlib.import_module(module)
    if module == "pillow_heif":
        plugin.register_heif_opener()


def develop(file: StrPath | IO[bytes], small: bool) -> Image.Image:
    """Develop a raw photograph with the camera's white balance, upright, with 8 bits per channel.

    Raises:
        OSError: The file is damaged or of a camera that is not known.
    """
    rawpy = importlib.import_module("rawpy")
    try:
        with rawpy.imread(str(file) if isinstance(file, str | Path) else file) as raw:
            picture = Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=small))
            if small:
                picture.info[WHOLE_SIZE] = 2 * picture.width, 2 * picture.height
            return picture
    except rawpy.LibRawError as error:
        raise OSError(f"not a raw photograph that LibRaw reads ({error})") from error
