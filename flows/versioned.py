"""Reading safetensors files that carry a version of their own."""

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from flows.errors import CheckpointError
from flows.stored import StoredModule


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself, without its tensors; nothing where it is none."""
    try:
        with safe_open(path, framework="pt") as opened:
            return opened.metadata() or {}
    except (SafetensorError, OSError):
        return {}


def read_versioned(
    path: Path, kind: str, name: str, version: int, written_by: str
) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Metadata and tensors of a file.

    Args:
        path: of the file.
        kind: what it should be, for messages.
        name: of the thing whose version is under `<name>_version`.
        version: that this release reads.
        written_by: the command that writes such files, for messages.

    Raises:
        CheckpointError: missing, cut off, or of another version.
    """
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: expected a {kind} written by `{written_by}`")
    try:
        with safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a {kind}, or was cut off ({error})") from error
    found = metadata.get(f"{name}_version")
    if found != str(version):
        raise CheckpointError(f"{path} has {name} version {found}, this release of flows reads {version}")
    return metadata, tensors


def check_made_by(
    path: Path | str, what: str, model: StoredModule, fingerprint: str, model_type: str = "model"
) -> None:
    """Raise CheckpointError unless what a file holds is of this model; the message has both fingerprints.

    Args:
        path: of the file, for the message.
        what: it holds, `codes`.
        model: that shall take them.
        fingerprint: that the file tells.
        model_type: likewise, where it does.
    """
    own = model.fingerprint()
    if fingerprint != own or model_type not in ("model", type(model).__name__):
        raise CheckpointError(
            f"{path} holds {what} of {model_type} {fingerprint}; they mean nothing to "
            f"{type(model).__name__} {own}"
        )
