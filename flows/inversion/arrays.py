"""Files of named tensors: safetensors, NumPy's .npy and .npz, and PyTorch's .pt."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from flows.core.schema import parse, read_json, unaltered
from flows.errors import CheckpointError, UserError
from flows.storage.files import StrPath, reading, what_is, write_atomically
from flows.storage.tensor_files import save_tensors
from flows.storage.versioned import read_safetensors

SUFFIXES = (".safetensors", ".npy", ".npz", ".pt", ".pth")
"""Suffixes of the files that are read and written."""
ALONE = "code"
"""Name of the tensor of a file that has no names: .npy, or a bare tensor in .pt."""
METADATA = "metadata"
"""Name of the entry of .npz and .pt files that has the metadata, as JSON."""


def check_suffix(path: Path, option: str = "--output") -> None:
    """Raise UserError unless the suffix of `path` is one of `SUFFIXES`."""
    if path.suffix.lower() not in SUFFIXES:
        raise UserError(
            f"{option} {path}: expected a file of codes ({', '.join(SUFFIXES)}), got "
            f"{f'suffix {path.suffix}' if path.suffix else 'no suffix'}"
        )


def is_plain(path: Path) -> bool:
    """Whether the format of a file holds one array and nothing else."""
    return path.suffix.lower() == ".npy"


def write_tensors(path: StrPath, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata in the format of the suffix; .npy holds the tensor `code` alone.

    Raises:
        UserError: The suffix is unknown.
    """
    path = Path(path)
    check_suffix(path)
    own = {name: _wide(value.detach().cpu()).contiguous().clone() for name, value in tensors.items()}
    content, suffix = io.BytesIO(), path.suffix.lower()
    if suffix == ".safetensors":
        save_tensors(path, own, metadata)
        return
    if suffix == ".npy":
        np.save(content, own[ALONE].numpy(), allow_pickle=False)
    elif suffix == ".npz":
        arrays: dict[str, Any] = {name: value.numpy() for name, value in own.items()}
        arrays[METADATA] = np.array(json.dumps(dict(metadata)))
        np.savez(content, **arrays)
    else:
        torch.save({**own, METADATA: json.dumps(dict(metadata))}, content)
    write_atomically(path, lambda place: place.write_bytes(content.getvalue()))


def read_tensors(path: StrPath, kind: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors in the format of the suffix; nothing in the file is executed.

    Args:
        path: File to read.
        kind: Expected kind of file, for messages.

    Returns:
        Metadata, empty if there are none, and tensors by name.

    Raises:
        CheckpointError: The file is missing, damaged, or holds something else than tensors.
    """
    path = Path(path)
    if state := what_is(path):
        raise CheckpointError(f"{path} {state}: expected a {kind}")
    suffix = path.suffix.lower()
    if suffix in (".npy", ".npz"):
        metadata, tensors = _read_numpy(path, suffix)
    elif suffix in (".pt", ".pth"):
        metadata, tensors = _read_torch(path)
    else:
        metadata, tensors = read_safetensors(path, kind)
    for name, value in tensors.items():
        if value.layout != torch.strided or value.is_nested or value.is_quantized or value.is_meta:
            raise CheckpointError(f"{path}: expected dense tensors, {name} is sparse, nested or quantised")
    return metadata, {name: _wide(value.detach()) for name, value in tensors.items()}


def _wide(value: Tensor) -> Tensor:
    """Convert numbers of less than 32 bits to fp32: half precision overflows when codes move."""
    return value.float() if value.is_floating_point() and value.element_size() < 4 else value


def _read_numpy(path: Path, suffix: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    with reading(path, f"NumPy file ({suffix}) of numbers"):
        loaded = np.load(path, allow_pickle=False)
        arrays = (
            {ALONE: loaded}
            if isinstance(loaded, np.ndarray)
            else {name: loaded[name] for name in loaded.files}
        )
        stated = arrays.pop(METADATA, None)
        # A copy in the byte order of this machine, which torch expects.
        tensors = {
            name: torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
            for name, value in arrays.items()
        }
    return _parse(path, None if stated is None else str(stated)), tensors


def _read_torch(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with reading(path, "PyTorch file of tensors"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of kinds of tensors that are refused by name
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    if isinstance(loaded, Tensor):
        return {}, {ALONE: loaded}
    if not isinstance(loaded, dict):
        raise CheckpointError(
            f"{path}: expected a tensor or a dict of tensors, found a {type(loaded).__name__}"
        )
    stated = loaded.get(METADATA)
    tensors = {str(name): value.detach() for name, value in loaded.items() if isinstance(value, Tensor)}
    return _parse(path, stated if isinstance(stated, str) else None), tensors


def _parse(path: Path, stated: str | None) -> dict[str, str]:
    """Metadata from JSON; empty if there are none."""
    if stated is None:
        return {}
    with unaltered(path):
        metadata: dict[str, str] = parse(dict[str, str], read_json(stated), METADATA)
    return metadata
