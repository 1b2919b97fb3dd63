"""Decoding of picture files of any format and size to uint8 images of one size."""

import struct
import tarfile
import threading
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import IO, TypeVar

import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from flows import images
from flows.core.bounds import ImageSize
from flows.data.base import Batch, Split, contents_of, digest_of
from flows.data.formats import WHOLE_SIZE, open_picture
from flows.errors import UserError
from flows.storage.files import StrPath

T = TypeVar("T")

# Exceptions of Pillow, zipfile and tarfile for files that are damaged or not pictures.
BROKEN = (
    OSError, SyntaxError, ValueError, EOFError, RuntimeError, struct.error, zlib.error, zipfile.BadZipFile,
    tarfile.TarError, Image.DecompressionBombError,
)  # fmt: skip


TURNED = (5, 6, 7, 8)
"""EXIF orientations by which height and width change places."""


class BrokenPicture(UserError):
    """A file is damaged, no picture, or a picture that is not supported; the message is the reason alone."""


def decode(
    file: StrPath | IO[bytes], largest: int | None = None, draft: tuple[int, int] | None = None
) -> Image.Image:
    """Decode a picture file, of an animation the first frame, and rotate it by its EXIF orientation.

    Only Pillow runs where exceptions are taken for faults of the file: our own code raises bugs as such.

    Args:
        file: Path or opened file.
        largest: Maximum number of pixels, checked before decoding; None sets no limit.
        draft: (width, height) from which on a JPEG may be decoded at a reduced size; None decodes it whole.

    Raises:
        BrokenPicture: The file is damaged, no picture, too large, or has more than 8 bits per channel.
    """
    with opening(file) as opened:
        if largest is not None and opened.width * opened.height > largest:
            raise BrokenPicture(
                f"{opened.width}×{opened.height} pixels, expected at most {largest // 1_000_000} million"
            )
        with decoding():
            if draft is not None:
                opened.draft("RGB", draft)
            opened.load()
            upright_picture = ImageOps.exif_transpose(opened)
        return upright_picture


def verify(file: StrPath | IO[bytes]) -> tuple[int, int]:
    """Check the header and the checksums of a picture file without decoding it; returns (width, height).

    Raises:
        BrokenPicture: The file is damaged, no picture, or has more than 8 bits per channel.
    """
    with opening(file, small=True) as opened:
        size = upright_size(opened)
        with decoding():
            opened.verify()
    return size


class Budget:
    """Memory that threads share: one waits until there is enough for its picture.

    Args:
        size: Number of bytes. A picture that needs more waits until it is alone.
    """

    def __init__(self, size: int):
        self.size, self.taken, self.freed = size, 0, threading.Condition()

    @contextmanager
    def take(self, needed: int) -> Iterator[None]:
        """Context in which `needed` bytes, at most all of them, are taken."""
        needed = min(needed, self.size)
        with self.freed:
            self.freed.wait_for(lambda: self.taken + needed <= self.size)
            self.taken += needed
        try:
            yield
        finally:
            with self.freed:
                self.taken -= needed
                self.freed.notify_all()


DECODING = Budget(2**30)
"""Memory of the pictures that threads decode at one time."""
COPIES = 3
"""Number of copies of a picture while it is turned upright, flattened and cropped."""
REDUCED = 2
"""Factor by which a JPEG that is reduced while it is decoded stays above the side that is wanted."""


def decode_resized(
    file: StrPath | IO[bytes], size: ImageSize, channels: int
) -> tuple[Tensor, tuple[int, int]]:
    """Decode a picture to `resized`, in bounded memory; returns it with the file's (width, height).

    A JPEG whose sides are several times as long is reduced by a power of two while it is decoded, to at least
    twice `size`; a raw photograph is developed at half its size.

    Raises:
        BrokenPicture: The file is damaged, no picture, or has more than 8 bits per channel.
    """
    with opening(file, small=True) as opened:
        shape = upright_size(opened)
        with loaded(opened, *sides(size)):
            return resized(opened, size, channels), shape


def decode_whole(file: StrPath | IO[bytes], size: tuple[int, int], channels: int) -> Tensor:
    """Decode a picture without a crop, upright, over white, in bounded memory; see `decode_resized`.

    Args:
        file: Path or opened file.
        size: Height and width, that of the picture or smaller, with its aspect ratio (Lanczos).
        channels: Number of channels, 3 for RGB, 1 for grey.

    Returns:
        uint8 (channels, *size).

    Raises:
        BrokenPicture: The file is damaged, no picture, or has more than 8 bits per channel.
    """
    height, width = size
    with opening(file) as opened, loaded(opened, max(size), max(size)):
        flat = upright(opened, channels)
        if flat.size != (width, height):
            flat = flat.resize((width, height), Image.Resampling.LANCZOS)
        return images.from_pillow(flat, channels)


@contextmanager
def loaded(opened: Image.Image, height: int, width: int) -> Iterator[None]:
    """Context in which the pixels of an opened picture are in memory, of which threads have enough.

    A JPEG may be reduced while it is decoded, to at least twice the given height and width.
    """
    with decoding():
        opened.draft(opened.mode, (REDUCED * width, REDUCED * height))
    needed = opened.width * opened.height * len(opened.getbands()) * COPIES
    with DECODING.take(needed):
        with decoding():
            opened.load()
        yield


@contextmanager
def opening(file: StrPath | IO[bytes], small: bool = False) -> Iterator[Image.Image]:
    """Context of a picture file whose header was read, and whose pixels have 8 bits per channel.

    Args:
        file: Path or opened file.
        small: Whether a raw photograph may be developed at half its size.
    """
    with decoding():
        opened = open_picture(file, small)
    with opened:
        check_depth(opened)
        yield opened


@contextmanager
def decoding() -> Iterator[None]:
    """Context for calls of Pillow or zipfile alone; their exceptions become `BrokenPicture`."""
    try:
        yield
    except BROKEN as error:
        raise BrokenPicture(reason(error)) from error


@contextmanager
def named(file: object) -> Iterator[None]:
    """Context in which a `BrokenPicture` becomes a UserError that names the file."""
    try:
        yield
    except BrokenPicture as error:
        raise UserError(f"{file} cannot be decoded: {error}") from error


def resized(picture: Image.Image, size: ImageSize, channels: int) -> Tensor:
    """Convert a picture to uint8 (channels, *size): upright, over white, centre-cropped, resized."""
    # Resizing needs colours instead of palette entries, so the picture is flattened first.
    flat = upright(picture, channels)
    return images.from_pillow(images.crop_and_resize(flat, *sides(size)), channels)


def upright(picture: Image.Image, channels: int) -> Image.Image:
    """Rotate a picture by its EXIF orientation and flatten it over white; grey for one channel, else RGB.

    Raises:
        BrokenPicture: The pixels have more than 8 bits.
    """
    check_depth(picture)
    return images.flatten(ImageOps.exif_transpose(picture), channels)


def upright_size(picture: Image.Image) -> tuple[int, int]:
    """Width and height of a picture file, turned by its EXIF orientation; of a raw photograph in full."""
    width, height = picture.info.get(WHOLE_SIZE, picture.size)
    exif = Image.Exif()
    with decoding():
        if picture.format == "PNG":  # its `getexif` decodes all pixels
            exif.load(picture.info.get("exif", b""))
        else:
            exif = picture.getexif()
    turned = exif.get(ExifTags.Base.Orientation, 1) in TURNED
    return (height, width) if turned else (width, height)


def check_depth(picture: Image.Image) -> None:
    """Raise BrokenPicture for pixels of more than 8 bits, which Pillow would clip instead of scaling."""
    if picture.mode.startswith(("I", "F")):
        raise BrokenPicture(f"expected 8-bit pixels, got Pillow's mode {picture.mode}")


def sides(size: ImageSize) -> tuple[int, int]:
    """Height and width of images whose size is a side, of squares, or already both."""
    return (size, size) if isinstance(size, int) else (size[0], size[1])


def resize_transform(size: ImageSize, channels: int) -> str:
    """Describe `resized` for the `transform` of a data set."""
    height, width = sides(size)
    shape = "a square" if height == width else f"{width}:{height}"
    grey = ", grey" if channels == 1 else ""
    return f"centre-cropped to {shape} and resized to {width}×{height} (Lanczos){grey}"


def reason(error: Exception) -> str:
    """Describe why a file cannot be decoded, without the object that Pillow names."""
    return "not a picture" if isinstance(error, UnidentifiedImageError) else str(error)


class DecodedSplit(Split):
    """Split whose pictures are decoded on access; those that turn out to be broken are left out.

    Attributes:
        marks: Size, date or checksum of every file, for the digest; empty if they are not known.
        broken: Index of every broken picture that was met to the reason.
    """

    def __init__(self) -> None:
        self.marks: Sequence[object] = ()
        self.broken: dict[int, str] = {}

    def name_of_picture(self, index: int) -> str:
        """Name of a picture in messages."""
        return self.name_of(index)

    def sound(self, index: int, decode: Callable[[int], T]) -> T | None:
        """Return `decode(index)`, a picture, or None if the picture is broken, which is noted.

        Raises:
            UserError: The file cannot be read now.
        """
        if index in self.broken:
            return None
        try:
            return decode(index)
        except BrokenPicture as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno is not None:
                # Not the picture but the disk or a file server, which may have it again later.
                raise UserError(f"{self.name_of_picture(index)} cannot be read: {error}") from error
            self.leave_out({index: str(error)})
            return None

    def leave_out(self, broken: dict[int, str]) -> None:
        """Note broken pictures, with the reasons; they are named once, in the main process."""
        news = {index: why for index, why in broken.items() if index not in self.broken}
        self.broken |= news
        if torch.utils.data.get_worker_info() is None:
            for index, why in news.items():
                warnings.warn(left_out(self.name_of_picture(index), why, len(self.broken)), stacklevel=2)


class LazySplit(DecodedSplit):
    """Split that is too large for memory; images are decoded on access.

    A picture that turns out to be broken is left out: the next sound one of the split stands in its place.

    Args:
        decode: Function from an index to an image, uint8 (C, H, W); it may raise BrokenPicture.
        labels: int64 (n,).
        attributes: (n, number of attributes) or None.
        names: Names of the images in messages, as a list or as a function of the index; None for numbers.
    """

    def __init__(
        self,
        decode: Callable[[int], Tensor],
        labels: Tensor,
        attributes: Tensor | None = None,
        names: Sequence[str] | Callable[[int], str] | None = None,
    ):
        super().__init__()
        self.decode = decode
        self.labels = labels
        self.attributes = attributes
        self.names = None if callable(names) else names
        self.naming = names if callable(names) else None

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        sound = [self._sound(i) for i in indices]
        keys = torch.tensor([i for i, _ in sound])
        return self.batch(torch.stack([picture for _, picture in sound]), self.labels[keys], keys)

    def name_of(self, index: int) -> str:
        return super().name_of(index) if self.naming is None else self.naming(index)

    def digest(self) -> str:
        """SHA-256 of number, names, marks, attributes and masks."""
        names = (*(self.names or ()), *self.marks)
        return digest_of(len(self), names, *contents_of(self.attributes, self.masks))

    def _sound(self, index: int) -> tuple[int, Tensor]:
        """Index and pixels of an image, or of the next one that is not broken."""
        for other in chain(range(index, len(self)), range(index)):
            if (picture := self.sound(other, self.decode)) is not None:
                return other, picture
        raise UserError(f"none of the {len(self)} pictures can be decoded, e.g. {self.name_of(index)}")


def left_out(name: str, why: str, count: int) -> str:
    """Sentence on a broken picture that was met after the start."""
    return f"{name} cannot be decoded ({why}): left out, another stands in its place ({count} so far)"
