"""Code files: codes with the fingerprint of their model."""

import json
from dataclasses import asdict, dataclass

import torch
from safetensors.torch import save_file
from torch import Tensor

from flows.errors import CheckpointError, UserError
from flows.files import StrPath, write_atomically
from flows.inversion.exact import Certificate
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.schema import check_names, parse, read_json, unaltered
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


@dataclass(frozen=True)
class Header:
    """Metadata of a code file, besides its version; names, certificates and labels are JSON."""

    model_type: str
    fingerprint: str
    space: str
    names: str
    certificates: str
    labels: str


def save_codes(path: StrPath, contents: CodeFile, model: LatentModel) -> None:
    """Write codes to a safetensors file that only `model` will accept.

    Raises:
        UserError: The codes do not fit the model, are not finite, or do not have one name and one certificate
            each.
    """
    codes = contents.codes
    check_contents(contents, model)
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
    with unaltered(path):
        header = parse(Header, {key: metadata[key] for key in Header.__annotations__ if key in metadata})
        names = parse(list[str], read_json(header.names), "names")
        check_names(names)
        labels = parse(list[int] | None, read_json(header.labels), "labels")
        certificates = parse(list[Certificate], read_json(header.certificates), "certificates")
        values = parse(Tensor, tensors.get("code"), "code")
    check_made_by(path, "codes", model, header.fingerprint, header.model_type)
    if header.space != space:
        raise CheckpointError(f"{path} holds codes of space {header.space!r}, expected {space!r}")
    with unaltered(path):
        if any(not 0 <= label < 2**63 for label in labels or []):
            raise UserError("labels: expected classes, counted from 0")
        codes = Codes(values, space, None if labels is None else torch.tensor(labels, dtype=torch.int64))
        contents = CodeFile(codes, names, certificates)
        check_contents(contents, model)
    return contents


def check_contents(contents: CodeFile, model: LatentModel) -> None:
    """Raise UserError unless codes are finite, fit the model, and have a name and a certificate each."""
    codes, names, certificates = contents.codes, contents.names, contents.certificates
    model.check_code(codes.values, codes.space)
    if {len(names), len(certificates)} != {len(codes)}:
        raise UserError(
            f"expected one name and one certificate per code, got {len(codes)} codes, {len(names)} names and "
            f"{len(certificates)} certificates"
        )
    codes.check_finite(names)
