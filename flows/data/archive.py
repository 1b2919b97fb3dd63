"""Files below a folder, or in a zip or tar archive: their names, and each of them to be opened."""

import bz2
import gzip
import io
import lzma
import os
import shutil
import tarfile
import tempfile
import unicodedata
import weakref
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import IO, Any, NamedTuple

from flows.data.decode import BrokenPicture, decoding
from flows.errors import DataMissing, UserError
from flows.storage.files import reading

LARGEST_ENTRY = 2**29
"""Maximum size of a file in an archive, in bytes, which is read as a whole."""
ENCRYPTED = 1
"""Bit of the flags of an encrypted file in a zip archive."""
COMPRESSED: dict[bytes, Any] = {b"\x1f\x8b": gzip, b"BZh": bz2, b"\xfd7zXZ\x00": lzma}
"""First bytes of compressed files, and the modules that open them."""


class Listing(NamedTuple):
    """Names below a folder.

    Attributes:
        names: Relative names of the files, sorted, with / between folders; hidden files are left out.
        missed: Relative names of folders that cannot be opened, and of devices, pipes and sockets.
    """

    names: tuple[str, ...]
    missed: tuple[str, ...] = ()


class Entry(io.BytesIO):
    """Content of a file in an archive.

    Attributes:
        name: Relative name of the file, by whose suffix raw photographs are known.
    """

    def __init__(self, content: bytes, name: str):
        super().__init__(content)
        self.name = name


class Files(ABC):
    """Files of one place by their relative names. Opened once per process: two would share one position."""

    @abstractmethod
    def names(self, missed: list[str]) -> Iterator[str]:
        """Yield the relative names of all files; what cannot be read is added to `missed`."""

    @abstractmethod
    def open(self, name: str) -> Path | Entry:
        """Return a path or buffer from which a file can be read.

        Raises:
            BrokenPicture: The file is damaged, encrypted or too large.
        """

    @abstractmethod
    def mark(self, name: str) -> int:
        """Return the size or the checksum of a file, without reading it."""


class Directory(Files):
    """Files below a folder."""

    def __init__(self, path: Path):
        self.path = path

    def names(self, missed: list[str]) -> Iterator[str]:
        return walk(self.path, missed)

    def open(self, name: str) -> Path:
        return self.path / name

    def mark(self, name: str) -> int:
        return (self.path / name).stat().st_size


class Zip(Files):
    """Files in a zip archive."""

    def __init__(self, path: Path):
        with reading(path, "zip archive"):
            self.archive = zipfile.ZipFile(path)

    def names(self, missed: list[str]) -> Iterator[str]:
        return (entry for entry in self.archive.namelist() if entry[-1] != "/")

    def open(self, name: str) -> Entry:
        entry = self.archive.getinfo(name)
        check_entry(entry.file_size)
        if entry.flag_bits & ENCRYPTED:
            raise BrokenPicture("encrypted")
        with decoding():
            try:
                content = self.archive.read(entry)
            except NotImplementedError as error:
                raise BrokenPicture(str(error)) from error
        return Entry(content, name)

    def mark(self, name: str) -> int:
        return self.archive.getinfo(name).CRC


class Tar(Files):
    """Files in a tar archive; a compressed one is decompressed once, into a file without a name."""

    def __init__(self, path: Path):
        with reading(path, "tar archive"), ExitStack() as opened:
            self.file = opened.enter_context(uncompressed(path))
            with tarfile.open(fileobj=self.file, mode="r:") as archive:
                members = archive.getmembers()
            weakref.finalize(self, opened.pop_all().close)
        self.members = {member.name.removeprefix("./"): member for member in members if member.isfile()}

    def names(self, missed: list[str]) -> Iterator[str]:
        return iter(self.members)

    def open(self, name: str) -> Entry:
        member = self.members[name]
        check_entry(member.size)
        # Threads share the file, so that it is read without its position.
        content = os.pread(self.file.fileno(), member.size, member.offset_data)
        if len(content) < member.size:
            raise BrokenPicture("cut off")
        return Entry(content, name)

    def mark(self, name: str) -> int:
        return self.members[name].size


@contextmanager
def uncompressed(path: Path) -> Iterator[IO[bytes]]:
    """Context of a tar archive, decompressed, in which a file is read without those before it."""
    with open(path, "rb") as opened:
        start = opened.read(6)
        if not start.startswith(tuple(COMPRESSED)):
            opened.seek(0)
            yield opened
            return
    kind = next(module for sign, module in COMPRESSED.items() if start.startswith(sign))
    with tempfile.TemporaryFile() as target:
        with kind.open(path) as source:
            shutil.copyfileobj(source, target)
        target.seek(0)
        yield target


def check_entry(size: int) -> None:
    """Raise BrokenPicture for a file of an archive that is too large to be read as a whole."""
    if size > LARGEST_ENTRY:
        raise BrokenPicture(f"{size / 2**30:.1f} GiB, expected at most {LARGEST_ENTRY / 2**30:g}")


def files_of(path: Path) -> Files:
    """Files below a folder or in an archive.

    Raises:
        DataMissing: Nothing is at `path`.
        UserError: `path` is neither a folder nor a zip or tar archive.
    """
    if path.is_dir():
        return Directory(path)
    if not path.exists():
        raise DataMissing(f"no folder, zip or tar archive at {path}; set data.path")
    return _archive(path, path.stat().st_mtime_ns, os.getpid())


@lru_cache(maxsize=4)
def _archive(path: Path, changed: int, process: int) -> Files:
    """Open an archive, once per process: processes that share one would share its file position."""
    if path.is_file() and zipfile.is_zipfile(path):
        return Zip(path)
    if path.is_file() and tarfile.is_tarfile(path):
        return Tar(path)
    raise UserError(f"data.path: expected a folder, a zip or a tar archive, got {path}")


def visible_names(path: Path) -> Listing:
    """List the files below a folder or in an archive, but the hidden ones; see `files_of` for errors."""
    missed: list[str] = []
    names = sorted(name for name in files_of(path).names(missed) if not is_hidden(name))
    return Listing(tuple(names), tuple(sorted(missed)))


def open_file(path: Path, name: str) -> Path | Entry:
    """Return a path or buffer from which the file `name` of a folder or archive can be read.

    Raises:
        BrokenPicture: The file is damaged within the archive.
    """
    return files_of(path).open(name)


def read_text_of(path: Path, name: str) -> str:
    """Text of the file `name` of a folder or archive.

    Raises:
        UserError: The text is not in UTF-8, or the file cannot be read.
    """
    file = open_file(path, name)
    with reading(path / name, "table"):
        content = file.read_bytes() if isinstance(file, Path) else file.getvalue()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path / name}: expected text in UTF-8 ({error.reason}); save it as such") from error


def file_marks(path: Path, names: Sequence[str]) -> list[int]:
    """Size of every file of a folder, or its checksum in a zip archive."""
    files = files_of(path)
    return [files.mark(name) for name in names]


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


def plain_name(name: str) -> str:
    """Relative name as it is compared: / between folders, no ./ before it, accents composed."""
    return unicodedata.normalize("NFC", name.strip().replace("\\", "/")).removeprefix("./")
