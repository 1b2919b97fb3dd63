"""Code files: codes with the fingerprint of their model."""

import json
from dataclasses import asdict, dataclass

import torch
from safetensors.torch import save_file

from flows.errors import CheckpointError
from flows.files import StrPath, write_atomically
from flows.inversion.exact import Certificate
from flows.metrics.roundtrip import PRECISIONS
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.versioned import check_made_by, read_versioned

__all__ = ["CodeFile", "load_codes", "save_codes"]

CODES_VERSION = 1


@dataclass(frozen=True)
class CodeFile:
    """Contents of a code file.

    Attributes:
        codes: n codes, fp64.
        names: Names of the images.
        certificates: One certificate per code.
    """

    codes: Codes
    names: list[str]
    certificates: list[Certificate]


def save_codes(path: StrPath, contents: CodeFile, model: LatentModel) -> None:
    """Write codes to a safetensors file that only `model` will accept."""
    codes = contents.codes
    metadata = {
        "codes_version": str(CODES_VERSION),
        "model_type": type(model).__name__,
        "fingerprint": model.fingerprint(),
        "space": codes.space,
        "names": json.dumps(contents.names),
        "certificates": json.dumps([asdict(certificate) for certificate in contents.certificates]),
        "labels": json.dumps(None if codes.labels is None else codes.labels.tolist()),
    }
    tensors = {"code": codes.values.cpu().contiguous()}
    write_atomically(path, lambda target: save_file(tensors, target, metadata=metadata))


def load_codes(path: StrPath, model: LatentModel, space: str = "z") -> CodeFile:
    """Read a code file.

    Raises:
        CheckpointError: The file is missing, altered, not a code file, or belongs to another model or space.
    """
    metadata, tensors = read_versioned(path, "code file", "codes", CODES_VERSION, "flows encode")
    code = tensors.get("code", torch.empty(0))
    try:
        recorded, fingerprint, model_type = metadata["space"], metadata["fingerprint"], metadata["model_type"]
        names, labels = json.loads(metadata["names"]), json.loads(metadata["labels"])
        certificates = [Certificate(**fields) for fields in json.loads(metadata["certificates"])]
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was altered: its header is incomplete ({error})") from error
    check_made_by(path, "codes", model, fingerprint, model_type)
    if recorded != space:
        raise CheckpointError(f"{path} holds codes of space {recorded!r}, expected {space!r}")
    for part, values, kind in (("names", names, str), ("labels", labels, int)):
        if values is None and part == "labels":
            continue
        if not isinstance(values, list) or any(type(each) is not kind for each in values):
            raise CheckpointError(f"{path} was altered: its {part} are no list of {kind.__name__}")
    if any(not 0 <= label < 2**63 for label in labels or []):
        raise CheckpointError(f"{path} was altered: its labels are no classes")
    if any(each.precision not in PRECISIONS for each in certificates):
        raise CheckpointError(f"{path} was altered: a certificate has none of the precisions {PRECISIONS}")
    if code.dim() == 0:
        raise CheckpointError(f"{path} was altered: its code has no batch axis")
    counts = {len(code), len(names), len(certificates), len(code) if labels is None else len(labels)}
    if len(counts) != 1 or tuple(code.shape[1:]) != model.spaces[space].shape:
        raise CheckpointError(f"{path} was altered: codes, names, certificates and labels do not match")
    classes = None if labels is None else torch.tensor(labels, dtype=torch.long)
    return CodeFile(Codes(code, space, classes), names, certificates)
