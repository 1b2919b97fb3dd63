"""Reading files with clear errors, and writing them atomically."""

import errno
import hashlib
import json
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from flows.errors import UserError

StrPath = str | Path
"""Paths that public functions accept."""


@contextmanager
def reading(path: StrPath, kind: str) -> Iterator[None]:
    """Context that parses a user's file: any exception raised by a library becomes a `UserError`.

    Args:
        path: Path of the file.
        kind: Expected kind of file, for the message, e.g. "gzipped IDX file".
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{path} cannot be read as a {kind} ({type(error).__name__}: {error})") from error


def read_yaml(path: StrPath) -> Any:
    """Read a YAML file; raises UserError if it is missing or damaged."""
    with reading(path, "YAML file"):
        return yaml.safe_load(Path(path).read_text())


def file_in_place_of(folder: Path) -> Path | None:
    """File in the place of a folder or of one of its parents; None if the folder exists or can be created."""
    existing = next((each for each in (folder, *folder.parents) if each.exists()), None)
    return None if existing is None or existing.is_dir() else existing


def make_folder(folder: StrPath) -> None:
    """Create a folder with its parents; an OSError says that a file is in its place, and names it."""
    folder = Path(folder)
    if file := file_in_place_of(folder):
        raise NotADirectoryError(errno.ENOTDIR, "expected a folder, found a file", str(file))
    folder.mkdir(parents=True, exist_ok=True)


SPECIAL = "expected a regular file or a new one, found a device, pipe or socket"


def is_special(path: Path) -> bool:
    """Whether there is something at the path that is neither a file nor a folder; it must not be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def expand(path: StrPath) -> Path:
    """Replace `~` at the beginning of a path. Raises UserError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user's folder") from error


def write_atomically(path: StrPath, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the folder of `path`, then rename the file to `path`.

    A reader never sees a partial file, even if this process is killed. The file gets the permissions that
    `open` would give it; some libraries create files for the owner only. A link is written through; a device
    or pipe is refused. An OSError without a file name, or
    with that of the temporary file, is raised again with `path`.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a folder", str(path))
    if is_special(path):
        raise OSError(errno.EINVAL, SPECIAL, str(path))
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    except OSError as error:  # of the temporary file, whose name the user did not give
        raise type(error)(error.errno, error.strerror, str(path)) from error
    os.close(handle)
    temporary = Path(name)
    try:
        write(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        with open(temporary, "rb") as written:
            os.fsync(written.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        own = (None, name, temporary)  # file names that say nothing to the user
        if isinstance(error, OSError) and error.errno is not None and error.filename in own:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def to_json(value: Any) -> str:
    """Format as indented JSON; non-finite numbers become null, because JSON has no `Infinity`."""

    def finite(part: Any) -> Any:
        if isinstance(part, float) and not math.isfinite(part):
            return None
        if isinstance(part, dict):
            return {key: finite(item) for key, item in part.items()}
        return [finite(item) for item in part] if isinstance(part, list | tuple) else part

    return json.dumps(finite(value), indent=1, allow_nan=False) + "\n"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
