"""Writing of safetensors files whose bytes depend on their contents alone."""

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from flows.storage.files import StrPath, write_atomically


def save_tensors(
    path: StrPath, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file atomically; equal tensors and metadata give equal bytes."""

    def write(target: Path) -> None:
        save_file(dict(tensors), target, metadata=None if metadata is None else dict(metadata))
        if metadata is not None:
            sort_metadata(target)

    write_atomically(path, write)


def sort_metadata(path: Path) -> None:
    """Sort the metadata in the header of a safetensors file, whose order the library leaves to chance."""
    with open(path, "r+b") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) > length:
            raise RuntimeError(f"{path}: the header has {length} bytes, and {len(text)} when sorted")
        file.seek(8)
        file.write(text.ljust(length))
