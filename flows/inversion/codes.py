"""Code files: codes with the fingerprint of the model they belong to."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file

from flows.errors import CheckpointError
from flows.files import write_atomically
from flows.inversion.exact import Certificate
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.versioned import check_made_by, read_versioned

CODES_VERSION = 1


@dataclass(frozen=True)
class CodeFile:
    """The contents of a code file.

    Attributes:
        codes: n codes, fp64.
        names: Names of the images.
        certificates: One certificate for each code.
    """

    codes: Codes
    names: list[str]
    certificates: list[Certificate]


def save_codes(path: Path, contents: CodeFile, model: LatentModel) -> None:
    """Write codes to a safetensors file that only `model` will accept."""
    codes = contents.codes
    metadata = {
        "codes_version": str(CODES_VERSION),
        "model_type": type(model).__name__,
        "fingerprint": model.fingerprint(),
        "space": codes.space,
        "names": json.dumps(contents.names),
        "certificates": json.dumps([asdict(given) for given in contents.certificates]),
        "labels": json.dumps(None if codes.labels is None else codes.labels.tolist()),
    }
    tensors = {"code": codes.values.cpu().contiguous()}
    write_atomically(path, lambda target: save_file(tensors, target, metadata=metadata))


def load_codes(path: Path, model: LatentModel, space: str = "z") -> CodeFile:
    """Read a code file.

    Raises:
        CheckpointError: missing, no code file, or of another model or space; the message has both names.
    """
    metadata, tensors = read_versioned(path, "code file", "codes", CODES_VERSION, "flows encode")
    code = tensors.get("code", torch.empty(0))
    try:
        found, fingerprint, model_type = metadata["space"], metadata["fingerprint"], metadata["model_type"]
        names, labels = json.loads(metadata["names"]), json.loads(metadata["labels"])
        certificates = [Certificate(**given) for given in json.loads(metadata["certificates"])]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was altered: its header lacks something ({error})") from error
    check_made_by(path, "codes", model, fingerprint, model_type)
    if found != space:
        raise CheckpointError(f"{path} holds codes of space {found!r}; expected some of {space!r}")
    counts = {len(code), len(names), len(certificates), len(code) if labels is None else len(labels)}
    if len(counts) != 1 or tuple(code.shape[1:]) != model.spaces[space].shape:
        raise CheckpointError(f"{path} was altered: codes, names, certificates and labels do not match")
    classes = None if labels is None else torch.tensor(labels, dtype=torch.long)
    return CodeFile(Codes(code, space, classes), names, certificates)
