"""Reading files with clear errors, and writing them atomically."""

import errno
import hashlib
import json
import math
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, cast

import yaml

from flows.core.context import set_within
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


MOST_NODES, DEEPEST = 100_000, 50
"""Limits of a YAML file: number of its nodes, aliases resolved, and depth of their nesting."""


def load_yaml(content: bytes) -> Any:
    """Parse YAML in UTF-8 within limits, because aliases can make a short text endless.

    Raises:
        UserError: The text is no YAML, refers to itself, or exceeds the limits; the message is the end of the
            sentence "expected a YAML file".
    """
    try:
        text = content.decode("utf-8")
        _check_depth(text)
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            nodes = _count_nodes(node, {})
            if nodes > MOST_NODES:
                raise UserError(f": it has {nodes:,} values, expected at most {MOST_NODES:,}")
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except UnicodeDecodeError as error:
        raise UserError(f" in UTF-8 ({error.reason})") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise UserError(f"{place}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise UserError(f": {str(error).splitlines()[0]}") from error
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        # Of a value with a tag, such as `!!int x`.
        raise UserError(f": a value cannot be read ({error})") from error


def _check_depth(text: str) -> None:
    """Raise UserError if lists and mappings are nested too deeply, before anything is built from them."""
    depth = 0
    for event in yaml.parse(text, yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise UserError(f": it is nested more than {DEEPEST} deep")


def _count_nodes(node: yaml.Node, known: dict[int, int]) -> int:
    """Number of values below a node, those behind aliases counted each time."""
    if id(node) in known:
        if not known[id(node)]:
            raise UserError(": it refers to itself")
        return known[id(node)]
    known[id(node)] = 0  # until it is counted
    parts = [each for pair in node.value for each in pair] if isinstance(node, yaml.MappingNode) else []
    parts = node.value if isinstance(node, yaml.SequenceNode) else parts
    known[id(node)] = 1 + sum(_count_nodes(part, known) for part in parts)
    return known[id(node)]


def read_yaml(path: StrPath) -> Any:
    """Read a YAML file; raises UserError if it is missing or damaged."""
    with reading(path, "YAML file"):
        content = Path(path).read_bytes()
    try:
        return load_yaml(content)
    except UserError as error:
        raise UserError(f"{path}: expected a YAML file{error}") from error


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


LONGEST_NAME = 255
"""Maximum length of a file name, in bytes of UTF-8."""


def shorten(name: str, most: int) -> str:
    """Cut a name to at most `most` bytes of UTF-8, between two letters."""
    return os.fsencode(name)[:most].decode("utf-8", "ignore")


def file_name(stem: str, suffix: str) -> str:
    """Name of a file: the stem with / and spaces as hyphens, shortened so that the name can be written."""
    return shorten(re.sub(r"[\s/\0]", "-", stem), LONGEST_NAME - len(os.fsencode(suffix))) + suffix


def distinct(names: Sequence[str]) -> list[str]:
    """The names, with numbers before them unless they differ, as files of several folders may not."""
    if len(set(names)) == len(names):
        return list(names)
    return [f"{i:04d}-{name}" for i, name in enumerate(names)]


SPECIAL = "expected a regular file or a new one, found a device, pipe or socket"


def is_special(path: Path) -> bool:
    """Whether there is something at the path that is neither a file nor a folder; it must not be replaced."""
    return path.exists() and not path.is_file() and not path.is_dir()


def what_is(path: Path) -> str:
    """Describe what is at a path instead of a file: nothing, a folder or a device; empty for a file."""
    if path.is_dir():
        return "is a folder"
    if is_special(path):
        return "is a device, pipe or socket"
    return "" if path.is_file() else "is missing"


def without_folders(value: Any) -> Any:
    """Plain values for publication: absolute paths become the names of their files or folders alone."""
    if isinstance(value, Mapping):
        return {key: without_folders(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(item) for item in value]
    return Path(value).name if isinstance(value, str | Path) and Path(value).is_absolute() else value


def expand(path: StrPath) -> Path:
    """Replace `~` at the beginning of a path. Raises UserError if there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no such user's folder") from error


_recorder: ContextVar[Callable[[Path], object] | None] = ContextVar("recorder", default=None)


@contextmanager
def recording(note: Callable[[Path], object]) -> Iterator[None]:
    """Context in which `note` is called with the path of every file before `write_atomically` writes it."""
    with set_within(_recorder, note):
        yield


def will_write(path: Path) -> None:
    """Call the recorder of this context, if there is one, with a file that is about to be written."""
    if note := _recorder.get():
        note(path)


def write_atomically(path: StrPath, write: Callable[[Path], object]) -> None:
    """Call `write` with a temporary path in the folder of `path`, then rename the file to `path`.

    A reader never sees a partial file, even if this process is killed. The file gets the permissions that
    `open` would give it; some libraries create files for the owner only. A link is written through; a device
    or pipe is refused. An OSError without a file name, or with that of the temporary file, is raised again
    with `path`.
    """
    path = Path(path)
    if path.is_symlink():
        path = path.resolve()
    make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "expected a file, found a folder", str(path))
    if is_special(path):
        raise OSError(errno.EINVAL, SPECIAL, str(path))
    will_write(path)
    # The name is known before the file is there, so that an interruption at any moment leaves none. It is
    # short, because that of `path` may be as long as the file system allows.
    temporary = path.with_name(f".{shorten(path.stem, 40)}.{secrets.token_hex(6)}{path.suffix}")
    try:
        os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        write(temporary)
        with open(temporary, "r+b") as written:  # Windows syncs what is open for writing
            os.fsync(written.fileno())
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        own = (None, str(temporary), temporary)  # file names that say nothing to the user
        if isinstance(error, OSError) and error.errno is not None and error.filename in own:
            raise type(error)(error.errno, error.strerror, str(path)) from error
        raise


def write_text(path: StrPath, text: str) -> None:
    """Write a text file in UTF-8; see `write_atomically`."""
    write_atomically(path, lambda place: place.write_text(text, encoding="utf-8"))


def is_temporary(name: str) -> bool:
    """Whether a file has the name of one that `write_atomically` has not completed."""
    return re.fullmatch(r"\..*\.[0-9a-f]{12}(\.[^.]*)?", name) is not None


REASON = "_reason"
"""Suffix of the key that says why the figure beside it is null."""


def to_json(value: Mapping[str, Any], unknown: Mapping[str, str] | None = None) -> str:
    """Format as indented JSON; figures that are not finite become null, with the reason beside them.

    Beside `"psnr": null` there is `"psnr_reason": "exact"`, because the PSNR of equal images is infinite.
    Beside a list or a table of figures there is one of reasons, for those that are null.

    Args:
        value: Plain values by name.
        unknown: Name of a figure to the reason why it can be unknown (NaN).
    """
    return json.dumps(strict(value, unknown), indent=1, allow_nan=False) + "\n"


def strict(value: Mapping[str, Any], unknown: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Plain values that strict JSON can express; see `to_json`."""
    return cast(dict[str, Any], _finite(value, unknown or {}))


def _finite(part: Any, unknown: Mapping[str, str]) -> Any:
    """The value with null for figures that are not finite, and with reasons."""
    if isinstance(part, Mapping):
        found = {}
        for key, item in part.items():
            found[key] = _finite_figures(item) if _is_figures(item) else _finite(item, unknown)
            if reason := _reason(str(key), item, unknown):
                found[f"{key}{REASON}"] = reason
        return found
    if isinstance(part, list | tuple):
        return [_finite(item, unknown) for item in part]
    return None if isinstance(part, float) and not math.isfinite(part) else part


def _is_figures(part: Any) -> bool:
    """Whether a value is a number, or a list or table of numbers."""
    if isinstance(part, Mapping):
        return all(map(_is_figures, part.values()))
    if isinstance(part, list | tuple):
        return all(map(_is_figures, part))
    return isinstance(part, float | int)


def _finite_figures(part: Any) -> Any:
    if isinstance(part, Mapping):
        return {key: _finite_figures(item) for key, item in part.items()}
    if isinstance(part, list | tuple):
        return [_finite_figures(item) for item in part]
    return part if math.isfinite(part) else None


def _reason(name: str, part: Any, unknown: Mapping[str, str]) -> Any:
    """Why figures of a name are null: a text, or a list or table of texts; None if none is."""
    if isinstance(part, Mapping) and _is_figures(part):
        reasons = {key: _reason(name, item, unknown) for key, item in part.items()}
        return {key: reason for key, reason in reasons.items() if reason} or None
    if isinstance(part, list | tuple) and _is_figures(part):
        each = [_reason(name, item, unknown) for item in part]
        return each if any(each) else None
    if not isinstance(part, float) or math.isfinite(part):
        return None
    if math.isnan(part):
        return unknown.get(name, "unknown")
    return "exact" if part > 0 and ("psnr" in name or name in ("undone", "back", "edited")) else "infinite"


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with open(path, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
