"""Reading safetensors files that record a format version."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from flows.core.schema import check_version
from flows.errors import CheckpointError
from flows.storage.files import StrPath, what_is
from flows.storage.stored import StoredModule


def read_metadata(path: StrPath) -> dict[str, str]:
    """Metadata of a safetensors file, without its tensors; empty for no such file, or another kind.

    Raises:
        OSError: The file may not be read.
    """
    if not Path(path).is_file():
        return {}
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return opened.metadata() or {}
    except SafetensorError:
        return {}


def check_readable(path: StrPath) -> None:
    """Raise an OSError that names the file if it may not be read; that of safetensors names none."""
    with open(path, "rb"):
        pass


def read_versioned(
    path: StrPath, kind: str, name: str, version: int, written_by: str
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and tensors of a file.

    Args:
        path: Path of the file.
        kind: Expected kind of file, for messages, e.g. "code file".
        name: Prefix of the metadata key `<name>_version`.
        version: Latest format version that this release reads.
        written_by: Command that writes such files, for messages.

    Raises:
        CheckpointError: The file is missing, truncated, or of another version.
    """
    if state := what_is(Path(path)):
        raise CheckpointError(f"{path} {state}: expected a {kind} written by `{written_by}`")
    metadata, tensors = read_safetensors(path, kind)
    if f"{name}_version" not in metadata:
        raise CheckpointError(f"{path} {kind_of(metadata)}; expected a {kind} written by `{written_by}`")
    check_recorded(path, metadata, name, version)
    return metadata, tensors


def read_safetensors(path: StrPath, kind: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read metadata and tensors of a safetensors file; `kind` is that of `read_versioned`.

    Raises:
        CheckpointError: The file is no safetensors file, or was cut off.
    """
    check_readable(path)
    try:
        with safe_open(path, framework="pt") as opened:
            return opened.metadata() or {}, {key: opened.get_tensor(key) for key in opened.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a {kind}, or was cut off ({error})") from error


def check_recorded(path: StrPath, metadata: Mapping[str, str], name: str, version: int) -> None:
    """Raise CheckpointError unless `<name>_version` is 1 … `version`, which this release reads."""
    recorded = metadata[f"{name}_version"]
    check_version(path, name, int(recorded) if recorded.isdecimal() else recorded, version)


KINDS = {
    "codes": "is a code file, which `flows decode` reads",
    "record": "is a record of an inversion, which `flows render` reads",
    "pair": "is a finished pair of `flows compare --resume`; the record beside it has its codes",
    "history": "is a record of edits, which `flows render` and the studio read",
    "directions": "is a file of directions, which `flows steer apply` and `score` read",
}
"""Prefix of the metadata key of a file's version to what the file is, and the commands that read it."""


def kind_of(metadata: Mapping[str, str]) -> str:
    """Describe what a safetensors file is, by its metadata."""
    for name, sentence in KINDS.items():
        if f"{name}_version" in metadata:
            return sentence
    if "model_type" in metadata:
        return f"has the weights of a {metadata['model_type']}; name its folder as a checkpoint"
    return "was not written by flows"


def check_made_by(
    path: StrPath, what: str, model: StoredModule, fingerprint: str, model_type: str = "model"
) -> None:
    """Raise CheckpointError unless a file belongs to this model; the message has both fingerprints.

    Args:
        path: Path of the file, for the message.
        what: Contents of the file, for the message, e.g. "codes".
        model: Model that is to use the contents.
        fingerprint: Fingerprint of the model recorded in the file.
        model_type: Class name of the model recorded in the file; "model" if none is recorded.
    """
    own = model.fingerprint()
    if fingerprint != own or model_type not in ("model", type(model).__name__):
        raise CheckpointError(
            f"{path} holds {what} of {model_type} {fingerprint}; they cannot be used with "
            f"{type(model).__name__} {own}"
        )
