"""Index of the models that come with flows: what each is, where its files are, and their digests.

`checkpoints/index.json` has one entry for every model. Its files are in the clone or in the wheel, in the
cache, or at the address of the entry, from which they are downloaded once and compared with their digests.
"""

import json
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, Literal
from urllib.error import HTTPError
from urllib.request import urlopen

from flows.core.schema import check_version, parse, read_json, unaltered
from flows.errors import CheckpointError
from flows.storage.files import file_digest, make_folder, write_text
from flows.storage.package import cache_folder, packaged

FORMAT_VERSION = 1
INDEX_FILE = "index.json"
CONFIG_FILE = "config.json"
LOOK_UP_SECONDS = 5.0
"""Seconds after which a server that does not answer is given up."""
BLOCK = 2**20
SHARED = 0o755
"""Mode of a downloaded folder, so that others may read a shared cache."""
PLAIN = re.compile(r"\w[\w.-]*")
ADDRESS = re.compile(r"https://|http://(127\.0\.0\.1|localhost)[:/]")
"""Beginning of the address of a model: encrypted, or on this machine."""

Kind = Literal["flow", "autoencoder", "generator", "predictor", "segmenter"]
"""Kinds of models: with an exact likelihood, with an encoder, with a generator alone, and semantic models."""
SEMANTIC = ("predictor", "segmenter")


@dataclass(frozen=True)
class StoredFile:
    """Size and digest of a file.

    Attributes:
        bytes: Size.
        sha256: Digest, 64 hexadecimal digits.
    """

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """Model of the index.

    Attributes:
        model_type: Name of its class.
        kind: Kind of model.
        image_shape: (C, H, W).
        data: Name of the data set that it was trained on.
        parameters: Number of parameters.
        licence: SPDX identifier of the licence of the weights.
        figures: Measured figures by name.
        files: Files that belong to it, by name.
        url: Address below which the files are published; empty if they are not.
    """

    model_type: str
    kind: Kind
    image_shape: tuple[int, int, int]
    data: str
    parameters: int
    licence: str
    figures: dict[str, float]
    files: dict[str, StoredFile]
    url: str = ""

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(file.bytes for file in self.files.values())

    def serves(self, image_shape: Sequence[int], data: str | None) -> bool:
        """Whether a predictor or segmenter is for images of this shape and data set."""
        return self.kind in SEMANTIC and self.image_shape == tuple(image_shape) and self.data == data


@dataclass(frozen=True)
class Index:
    """Contents of the index file."""

    format_version: int
    models: dict[str, Entry] = field(default_factory=dict)


def read_index(path: Path | None = None) -> dict[str, Entry]:
    """Models of the index by name, in the order of the file; none where no index is installed.

    Raises:
        CheckpointError: The file is damaged or of another format version.
    """
    path = path or packaged("checkpoints") / INDEX_FILE
    return _read(path, path.stat().st_mtime_ns) if path.is_file() else {}


@cache
def _read(path: Path, changed: int) -> dict[str, Entry]:
    with unaltered(path):
        content: Mapping[str, Any] = parse(dict[str, Any], read_json(path.read_bytes()))
    check_version(path, "format", content.get("format_version"), FORMAT_VERSION)
    with unaltered(path):
        index: Index = parse(Index, content)
    for name, entry in index.models.items():
        check_entry(path, name, entry)
    return index.models


def check_entry(path: Path, name: str, entry: Entry) -> None:
    """Raise CheckpointError unless names are plain, and the address is one of the web."""
    odd = [each for each in (name, *entry.files) if not PLAIN.fullmatch(each)]
    if odd:
        raise CheckpointError(f"{path}: expected a plain name without folders, got {odd[0]!r}")
    if entry.url and not ADDRESS.match(entry.url):
        raise CheckpointError(f"{path}: {name}: expected an address with https://, got {entry.url!r}")
    if CONFIG_FILE not in entry.files:
        raise CheckpointError(f"{path}: {name} has no {CONFIG_FILE}")


def write_index(entries: Mapping[str, Entry], path: Path) -> None:
    """Write an index file; entries are sorted by name."""
    models = {name: asdict(entries[name]) for name in sorted(entries)}
    text = json.dumps({"format_version": FORMAT_VERSION, "models": models}, indent=1, ensure_ascii=False)
    write_text(path, text + "\n")


def find_folder(name: str) -> Path | None:
    """Folder of a model of the index, in this installation or in the cache; None if it is in neither.

    A folder that differs from the index does not count, nor one of the cache from which files are missing.
    """
    entry, cached = read_index()[name], cache_folder("models") / name
    if is_same(own_folder(name), entry):
        return own_folder(name)
    whole = all((cached / file).is_file() for file in entry.files)
    return cached if whole and is_same(cached, entry) else None


def own_folder(name: str) -> Path:
    """Folder that a model of the index has in this installation, if it comes with it."""
    return packaged("checkpoints") / name


def is_same(folder: Path, entry: Entry) -> bool:
    """Whether a folder has the `config.json` of an entry, which has the digest of the weights."""
    config = folder / CONFIG_FILE
    return config.is_file() and file_digest(config) == entry.files[CONFIG_FILE].sha256


def is_available(name: str) -> bool:
    """Whether a model of the index is here or can be downloaded."""
    return find_folder(name) is not None or bool(read_index()[name].url)


def folder_of(name: str) -> Path:
    """Folder of a model of the index, downloaded if it is not here.

    Raises:
        CheckpointError: The model is not published, the server does not answer, or a file differs from the
            index.
    """
    return find_folder(name) or download(name, read_index()[name])


def download(name: str, entry: Entry) -> Path:
    """Download the files of a model into the cache, all of them or none; returns its folder.

    Raises:
        CheckpointError: The model is not published, the server does not answer, or a file differs from the
            index.
    """
    if not entry.url:
        raise CheckpointError(f"{name} is not in this installation{missing_because(name)}")
    target = cache_folder("models") / name
    with writing(target):
        make_folder(target.parent)
        place = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=target.parent))
    try:
        place.chmod(SHARED)
        for file, expected in entry.files.items():
            download_file(f"{entry.url}/{file}", place / file, expected)
        with writing(target):
            # Another process may have finished it meanwhile, and read it already.
            if find_folder(name) != target:
                shutil.rmtree(target, ignore_errors=True)
                place.rename(target)
    except CheckpointError:
        if find_folder(name) != target:
            raise
    finally:
        shutil.rmtree(place, ignore_errors=True)
    return target


def missing_because(name: str) -> str:
    """End of the sentence that says why an unpublished model is not here."""
    if own_folder(name).is_dir():
        return f": {own_folder(name)} differs from the index; load it by its path"
    return f", and not published yet: a clone of flows has it in checkpoints/{name}"


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Context that writes to the cache: an OSError becomes a CheckpointError with the way out."""
    try:
        yield
    except OSError as error:
        raise CheckpointError(
            f"{target} cannot be written ({error.strerror}): the variable FLOWS_CACHE names another folder"
        ) from error


def download_file(url: str, path: Path, expected: StoredFile) -> None:
    """Download one file, of which no more is read than its size.

    Raises:
        CheckpointError: The server does not answer, or the file differs from the index.
    """
    try:
        with urlopen(url, timeout=LOOK_UP_SECONDS) as answer, path.open("wb") as target:
            left = expected.bytes + 1
            while left > 0 and (block := answer.read(min(BLOCK, left))):
                target.write(block)
                left -= len(block)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise CheckpointError(f"{url} cannot be downloaded ({error}), and it is not cached either") from error
    if file_digest(path) != expected.sha256:
        raise CheckpointError(f"{url} is not the file of the index: its SHA-256 differs; nothing was kept")
