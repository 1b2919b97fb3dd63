"""Images from a folder or a zip archive: FFHQ, AFHQ, LSUN exports, your own photographs."""

import io
import os
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from flows.core.bounds import Bins, ShareBelowOne, Side
from flows.data.base import ArraySplit, ImageData, Split, SplitName, fair_order, hashed_split
from flows.data.decode import (
    EXTENSIONS,
    BrokenPicture,
    LazySplit,
    decode_square,
    decoding,
    square_transform,
    verify,
)
from flows.errors import DataMissing, UserError
from flows.storage.files import StrPath, expand, reading

__all__ = ["Folder"]

T = TypeVar("T")

SPLIT_FOLDERS: dict[str, SplitName] = {
    "train": "train", "training": "train", "validation": "validation", "valid": "validation",
    "val": "validation", "dev": "validation", "test": "test", "testing": "test",
}  # fmt: skip
"""Names of the folders of splits, in any case."""
IN_MEMORY_BYTES = 2**30
LARGEST_ENTRY = 2**29
"""Maximum size of a file in a zip archive, in bytes, which is read as a whole."""
ENCRYPTED = 1
"""Bit of the flags of an encrypted file in a zip archive."""


class Folder(ImageData):
    """Pictures of any size below a folder or in a zip archive, centre-cropped and resized.

    Splits: if the folder has subfolders for training and for validation or test, in any case (`train`,
    `training`; `validation`, `valid`, `val`, `dev`; `test`, `testing`), these; pictures elsewhere are not
    used, and a split without a folder is taken from the training folder. Otherwise each picture is assigned
    by a hash of its name, so that adding pictures moves no others. A held-out split that would be empty
    takes one picture of the training split. The order within a split is that of another hash: the first n
    pictures are a fair sample of all classes.

    Labels: the first level of subfolders (below `train` and `test`, if these exist), if there are at least
    two; −1 for pictures outside of them. Hidden files are ignored.

    Args:
        path: Path of the folder or zip archive.
        size: Side of the square images in pixels.
        channels: Number of channels, 3 for RGB, 1 for grey.
        validation: Share of the pictures held out for validation.
        test: Share of the pictures held out for test.
        in_memory: Whether to decode all pictures once and keep them; None does so below 1 GiB.
        bins: Number of grey levels that a model distinguishes; 32 for Glow's 5-bit faces.

    Attributes:
        unreadable: "name: reason" of every file with a picture's extension that cannot be read. Such files
            are left out, with a warning. Without `in_memory` only headers are checked in advance, and a
            truncated picture is left out when it is met; see `LazySplit`.

    Raises:
        DataMissing: Nothing is at `path`.
        UserError: `path` holds no readable picture, or a split would be empty.
    """

    name = "folder"

    def __init__(
        self,
        path: StrPath,
        size: Side = 32,
        channels: Literal[1, 3] = 3,
        validation: ShareBelowOne = 0.05,
        test: ShareBelowOne = 0.05,
        in_memory: bool | None = None,
        bins: Bins = 256,
    ):
        if min(validation, test) < 0 or validation + test >= 1:
            raise UserError(
                "validation and test: expected shares ≥ 0 that add up to less than 1, got "
                f"{validation} and {test}"
            )
        self.path = expand(path)
        self.size = size
        self.channels = channels
        self.shares = (validation, test)
        self.in_memory = in_memory
        self.bins = bins
        self.image_shape = (channels, size, size)
        self.transform = square_transform(size, channels)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the labels, sorted."""
        return self._layout.class_names

    def notes(self) -> list[str]:
        """Folders and pictures that were taken for a split, and the number of other files by suffix."""
        taken = [f"{folder}/ is the {split} split" for folder, split in self._layout.folders.items()]
        suffixes = [PurePosixPath(name).suffix.lower() for name in self._layout.others]
        counts = Counter(suffix or "without suffix" for suffix in suffixes)
        others = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
        contents, missed = self._contents, self._listing.missed
        borrowed = []
        for name, (file, shared) in self._borrowed.items():
            too = ", and is both held out and trained on" if shared else ""
            borrowed.append(f"no picture falls into the {name} split: {file} is taken for it{too}")
        return [
            *taken,
            *borrowed,
            *([f"not read, because they are no pictures: {others}"] if others else []),
            *([f"not read: {', '.join(missed[:3])}{', …' if missed[3:] else ''}"] if missed else []),
            *(
                [
                    f"{contents.small:,} of {len(contents.readable):,} pictures are smaller than "
                    f"{self.size}×{self.size} and were enlarged"
                ]
                if contents.small
                else []
            ),
        ]

    def test_note(self) -> str:
        """Return a sentence if the test split shares its picture with the training split."""
        file, shared = self._borrowed.get("test", ("", False))
        return f"the test split is {file} alone, which was trained on" if shared else ""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Files that cannot be read, "name: reason" each."""
        return self._contents.unreadable

    def split(self, name: SplitName) -> Split:
        readable, pixels = self._contents.readable, self._contents.pixels
        own = {file for file in readable if self._layout.split_of(file) == name}
        lent = {file for file, shared in self._borrowed.values() if not shared} if name == "train" else set()
        taken = {self._borrowed[name][0]} if name in self._borrowed else set()
        rows = [i for i, file in enumerate(readable) if file in (own - lent) | taken]
        if not rows:
            raise UserError(
                f"{self.path}: none of its {len(readable)} pictures is in the {name} split; set data.{name} "
                "to the share that is held out"
            )
        rows = [rows[i] for i in fair_order([readable[row] for row in rows])]
        names = [readable[i] for i in rows]
        labels = torch.tensor([self._layout.label(n) for n in names])
        if pixels is not None:
            return ArraySplit(pixels[rows], labels, names=names)
        split = LazySplit(partial(self._decode_at, names), labels, names=names)
        split.marks = file_marks(self.path, names)
        return split

    @cached_property
    def _borrowed(self) -> dict[SplitName, tuple[str, bool]]:
        """Picture that each split without one of its own takes, and whether it is held out and trained on.

        It is the one with the smallest hash, so that it goes back to training only when a picture of the
        split's own arrives. One picture is shared by all splits, and so is the last one that is left.
        """
        readable = self._contents.readable
        of = {file: self._layout.split_of(file) for file in readable}
        training = [file for file in readable if of[file] == "train"]
        borrowed: dict[SplitName, tuple[str, bool]] = {}
        if not training:  # all pictures fall into the held-out splits; the first is trained on
            training = list(readable)
            borrowed["train"] = (readable[0], True)
        training = [training[i] for i in fair_order([f"lent {file}" for file in training])]
        shares: dict[SplitName, float] = {"validation": self.shares[0], "test": self.shares[1]}
        for name, share in shares.items():
            if share and name not in of.values() and training:
                number = len(borrowed.keys() - {"train"})
                shared = len(training) - number < 2
                borrowed[name] = (training[min(number, len(training) - 1)], shared)
        return borrowed

    @cached_property
    def _listing(self) -> "Listing":
        return visible_names(self.path)

    @cached_property
    def _layout(self) -> "Layout":
        names = self._listing.names
        pictures = tuple(name for name in names if is_picture(name))
        others = tuple(name for name in names if not is_picture(name))
        if not pictures:
            raise UserError(f"no image files ({' '.join(EXTENSIONS)}) under {self.path}")
        return Layout(pictures, *self.shares, others)

    @cached_property
    def _contents(self) -> "Contents":
        n_bytes = len(self._layout.names) * self.channels * self.size**2
        in_memory = n_bytes < IN_MEMORY_BYTES if self.in_memory is None else self.in_memory
        check: Callable[[str], Checked] = self._decode if in_memory else self._verify
        with ThreadPoolExecutor() as threads:
            results = list(threads.map(partial(attempt, check), self._layout.names))
        pairs = list(zip(self._layout.names, results, strict=True))
        sound = {name: result for name, result in pairs if not isinstance(result, BrokenPicture)}
        unreadable = tuple(f"{name}: {r}" for name, r in pairs if isinstance(r, BrokenPicture))
        report_unreadable(self.path, unreadable, len(pairs))
        small = sum(min(shape) < self.size for _, shape in sound.values())
        pixels = [picture for picture, _ in sound.values() if picture is not None]
        return Contents(tuple(sound), unreadable, torch.stack(pixels) if in_memory else None, small)

    def _decode(self, name: str) -> tuple[Tensor, tuple[int, int]]:
        return decode_square(open_file(self.path, name), self.size, self.channels)

    def _decode_at(self, names: list[str], index: int) -> Tensor:
        return self._decode(names[index])[0]

    def _verify(self, name: str) -> tuple[None, tuple[int, int]]:
        return None, verify(open_file(self.path, name))


Checked = tuple[Tensor | None, tuple[int, int]]
"""Pixels of a picture, if it was decoded, and (width, height) of its file."""


class Contents(NamedTuple):
    """Pictures of a folder.

    Attributes:
        readable: Names of the readable pictures.
        unreadable: "name: reason" of the others.
        pixels: uint8 (n, C, size, size) of the readable ones, if they are kept in memory.
        small: Number of readable pictures that are smaller than the images.
    """

    readable: tuple[str, ...]
    unreadable: tuple[str, ...]
    pixels: Tensor | None
    small: int


def attempt(check: Callable[[str], T], name: str) -> T | BrokenPicture:
    """Return `check(name)`, or the exception of a broken file."""
    try:
        return check(name)
    except BrokenPicture as error:
        return error


def report_unreadable(path: Path, unreadable: tuple[str, ...], n: int) -> None:
    """Warn of unreadable files by number and first names; raise UserError if all n are unreadable."""
    if not unreadable:
        return
    shown = "; ".join(unreadable[:5]) + ("; …" if len(unreadable) > 5 else "")
    message = f"{path}: {len(unreadable)} of {n} image files cannot be read: {shown}"
    if len(unreadable) == n:
        raise UserError(message)
    warnings.warn(message, stacklevel=2)


# Splits and labels --------------------------------------------------------------------------------


class Layout:
    """Splits and labels that follow from the names of pictures; see `Folder`.

    Args:
        names: Relative names of all pictures, with / between folders.
        validation: Share held out for validation if the split has no folder.
        test: Share held out for test if the split has no folder.
        others: Relative names of the files that are no pictures.
    """

    def __init__(self, names: tuple[str, ...], validation: float, test: float, others: tuple[str, ...] = ()):
        self.names, self.others = names, others
        self.shares = (validation, test)
        self.top = shared_folders(names)
        tops = {self._parts(n)[0] for n in names if len(self._parts(n)) > 1}
        folders = {top: split for top in sorted(tops) if (split := SPLIT_FOLDERS.get(top.lower()))}
        named = {"train"} < set(folders.values())
        self.folders: dict[str, SplitName] = folders if named else {}
        self.own_folders = set(self.folders.values())
        first = {parts[0] for name in names if len(parts := self._below_split(name)) > 1}
        self.class_names = tuple(sorted(first)) if len(first) > 1 else ()

    def split_of(self, name: str) -> SplitName | None:
        """Return the split of a picture; None if it lies outside of the folders of splits."""
        validation, test = self.shares
        if not self.own_folders:
            return hashed_split(name, validation, test)
        split = self.folders.get(self._parts(name)[0])
        if split != "train":
            return split
        missing = {"validation": validation, "test": test}
        shares = {each: 0.0 if each in self.own_folders else share for each, share in missing.items()}
        return hashed_split(name, **shares)

    def label(self, name: str) -> int:
        """Return the class index of a picture, or −1."""
        parts = self._below_split(name)
        return self.class_names.index(parts[0]) if self.class_names and len(parts) > 1 else -1

    def _parts(self, name: str) -> tuple[str, ...]:
        return PurePosixPath(name).parts[self.top :]

    def _below_split(self, name: str) -> tuple[str, ...]:
        parts = self._parts(name)
        return parts[1:] if parts[0] in self.folders else parts


def shared_folders(names: tuple[str, ...]) -> int:
    """Return the number of top-level folders that contain everything, as in an archive of one folder.

    They carry no information about classes. A folder named like a split is not counted.
    """
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    shared = os.path.commonprefix(folders)
    return next((i for i, part in enumerate(shared) if part.lower() in SPLIT_FOLDERS), len(shared))


# Folder or archive --------------------------------------------------------------------------------


class Listing(NamedTuple):
    """Names below a folder.

    Attributes:
        names: Relative names of the files, sorted.
        missed: Relative names of folders that cannot be opened, and of devices, pipes and sockets.
    """

    names: tuple[str, ...]
    missed: tuple[str, ...] = ()


def visible_names(path: Path) -> Listing:
    """List the files below a folder or in a zip archive, sorted, but the hidden ones.

    Raises DataMissing if nothing is at `path`, and UserError if it is neither a folder nor a zip archive.
    """
    missed: list[str] = []
    if path.is_dir():
        names = list(walk(path, missed))
    elif not path.exists():
        raise DataMissing(f"no folder or zip archive at {path}; set data.path")
    elif not path.is_file() or not zipfile.is_zipfile(path):
        raise UserError(f"data.path: expected a folder or a zip archive, got {path}")
    else:
        names = [entry for entry in _archive(path, os.getpid()).namelist() if entry[-1] != "/"]
    return Listing(tuple(sorted(name for name in names if not is_hidden(name))), tuple(sorted(missed)))


def walk(top: Path, missed: list[str]) -> Iterator[str]:
    """Yield the relative names of the regular files below a folder, and of links that lead nowhere.

    A linked folder is entered once, so that a link to a folder above it ends. What is neither a file nor a
    folder is not opened, because a pipe would wait for a writer; it is added to `missed`, and so are folders
    that cannot be opened.
    """
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = folder.stat()
            with os.scandir(folder) as scanned:
                entries = list(scanned)
        except OSError as error:
            missed.append(f"{folder.relative_to(top).as_posix()}/ ({error.strerror})")
            continue
        if (status.st_dev, status.st_ino) in seen:
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = Path(entry.path).relative_to(top).as_posix()
            if os.path.isdir(entry.path):
                waiting.append(Path(entry.path))
            elif os.path.isfile(entry.path) or not os.path.exists(entry.path):
                yield name
            else:
                missed.append(f"{name} (a device, pipe or socket)")


def is_hidden(name: str) -> bool:
    """Whether a relative name is hidden or macOS metadata."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts)


def is_picture(name: str) -> bool:
    """Whether a relative name has a picture's extension."""
    return PurePosixPath(name).suffix.lower() in EXTENSIONS


def open_file(path: Path, name: str) -> Path | io.BytesIO:
    """Return a path or buffer from which Pillow can open the file `name` of a folder or archive.

    Raises:
        BrokenPicture: The file is damaged within the archive.
    """
    if path.is_dir():
        return path / name
    archive = _archive(path, os.getpid())
    entry = archive.getinfo(name)
    if entry.file_size > LARGEST_ENTRY:
        size = f"{entry.file_size / 2**30:.1f} GiB, expected at most {LARGEST_ENTRY / 2**30:g}"
        raise BrokenPicture(size)
    if entry.flag_bits & ENCRYPTED:
        raise BrokenPicture("encrypted")
    with decoding():
        try:
            content = archive.read(entry)
        except NotImplementedError as error:
            raise BrokenPicture(str(error)) from error
    return io.BytesIO(content)


def file_marks(path: Path, names: Sequence[str]) -> list[int]:
    """Size of every file of a folder, or checksum of every file of an archive."""
    if path.is_dir():
        return [(path / name).stat().st_size for name in names]
    archive = _archive(path, os.getpid())
    return [archive.getinfo(name).CRC for name in names]


@lru_cache(maxsize=4)
def _archive(path: Path, process: int) -> zipfile.ZipFile:
    """Open an archive, once per process: processes that share one would share its file position."""
    with reading(path, "zip archive"):
        return zipfile.ZipFile(path)
