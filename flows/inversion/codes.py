"""Code files: codes with the fingerprint of their model, in the formats of `arrays`."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from flows.core.checks import some_of
from flows.core.schema import check_names, parse, read_json, unaltered
from flows.errors import CheckpointError, UserError
from flows.inversion.arrays import ALONE, read_tensors, write_tensors
from flows.inversion.exact import Certificate
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.storage.files import StrPath
from flows.storage.versioned import KINDS, check_made_by, check_recorded, kind_of

__all__ = ["CodeFile", "load_codes", "save_codes"]

CODES_VERSION = 1
LABELS = "labels"
"""Name of the tensor of labels in a file of a plain array."""


@dataclass(frozen=True)
class CodeFile:
    """Contents of a code file.

    Attributes:
        codes: n codes; those of `flows encode` are in fp64.
        names: Names of the images.
        certificates: One certificate per code; empty for codes that a search found.
    """

    codes: Codes
    names: list[str]
    certificates: list[Certificate] = field(default_factory=list)


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
    """Write codes to a file that only `model` will accept, in the format of the suffix.

    A .npy file holds the values alone: neither model nor space, names, labels or certificates.

    Raises:
        UserError: The suffix is unknown, or the codes do not fit the model, are not finite, or do not have
            one name and, if any, one certificate each.
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
    write_tensors(path, {ALONE: codes.values}, metadata)


def load_codes(path: StrPath, model: LatentModel, space: str | None = None) -> CodeFile:
    """Read a code file, or a file of a plain array (n, D) of codes, from which names are made up.

    Args:
        path: Code file, or array of another program, as .npy, .npz, .pt or .safetensors.
        model: Model of the codes.
        space: Latent space of an array that does not state it; None takes the only one whose codes have that
            size. A code file states its space.

    Raises:
        CheckpointError: The file is missing, altered, not a code file, or belongs to another model.
        UserError: The array does not fit a space of the model, or fits several.
    """
    metadata, tensors = read_tensors(path, "code file written by `flows encode`")
    if "codes_version" not in metadata:
        if any(f"{name}_version" in metadata for name in KINDS) or "model_type" in metadata:
            raise CheckpointError(
                f"{path} {kind_of(metadata)}; expected a code file written by `flows encode`, or an array"
            )
        return _of_array(Path(path), tensors, model, space)
    check_recorded(path, metadata, "codes", CODES_VERSION)
    with unaltered(path):
        header = parse(Header, {key: metadata[key] for key in Header.__annotations__ if key in metadata})
        names = parse(list[str], read_json(header.names), "names")
        check_names(names)
        labels = parse(list[int] | None, read_json(header.labels), "labels")
        certificates = parse(list[Certificate], read_json(header.certificates), "certificates")
        values = parse(Tensor, tensors.get(ALONE), ALONE)
    check_made_by(path, "codes", model, header.fingerprint, header.model_type)
    with unaltered(path):
        if any(not 0 <= label < 2**63 for label in labels or []):
            raise UserError("labels: expected classes, counted from 0")
        codes = Codes(
            values, header.space, None if labels is None else torch.tensor(labels, dtype=torch.int64)
        )
        contents = CodeFile(codes, names, certificates)
        check_contents(contents, model)
    return contents


def _of_array(path: Path, tensors: Mapping[str, Tensor], model: LatentModel, space: str | None) -> CodeFile:
    """Codes of an array that another program wrote, (n, …) or a single one; a name of a space names it."""
    arrays = {name: value for name, value in tensors.items() if value.dim() and name != LABELS}
    named = [name for name in model.spaces if name in arrays]
    if space in arrays:
        named = [str(space)]
    elif not named:
        named = [name for name in (ALONE, "codes") if name in arrays] or list(arrays)
    if len(named) != 1:
        found = some_of(list(tensors)) or "nothing with an axis"
        hint = f": give --space {' or '.join(named)}" if set(named) <= set(model.spaces) and named else ""
        raise UserError(
            f"{path} was not written by flows: expected one array of codes, or one named {ALONE}; got "
            f"{found}{hint}"
        )
    name, values = named[0], arrays[named[0]]
    if not values.is_floating_point():
        raise UserError(f"{path}: expected floating-point codes, {name} has {values.dtype}")
    if name in model.spaces and space not in (None, name):
        raise UserError(f"{path} has codes of space {name!r}, expected {space!r}")
    chosen = _space_of(path, values, model, name if name in model.spaces else space)
    size = model.spaces[chosen].shape[0]
    codes = Codes(values.reshape(-1, size), chosen, tensors.get(LABELS))
    digits = len(str(len(codes) - 1))
    contents = CodeFile(codes, [f"{path.stem}-{i:0{digits}d}" for i in range(len(codes))])
    check_contents(contents, model)
    return contents


def _space_of(path: Path, values: Tensor, model: LatentModel, space: str | None) -> str:
    """Space whose codes an array has; raises UserError if none does, or several."""
    sizes = {values[0].numel() if len(values) else 0, values.numel() if values.dim() == 1 else -1}
    fitting = [name for name, each in model.spaces.items() if each.shape[0] in sizes]
    expected = ", ".join(f"(n, {each.shape[0]}) in {name}" for name, each in model.spaces.items())
    if space is not None:
        model.check_space(space)
        fitting = [name for name in fitting if name == space]
        expected = f"(n, {model.spaces[space].shape[0]}) in {space}"
    if not fitting:
        raise UserError(f"{path}: expected codes of shape {expected}, found {tuple(values.shape)}")
    if len(fitting) > 1:
        raise UserError(
            f"{path} does not say in which space its codes are: give --space {' or '.join(fitting)}"
        )
    return fitting[0]


def check_contents(contents: CodeFile, model: LatentModel) -> None:
    """Raise UserError unless codes are finite and fit the model, with names and, if any, certificates."""
    codes, names, certificates = contents.codes, contents.names, contents.certificates
    model.check_code(codes.values, codes.space)
    if len(names) != len(codes) or len(certificates) not in (0, len(codes)):
        raise UserError(
            f"expected one name and one certificate per code, got {len(codes)} codes, {len(names)} names and "
            f"{len(certificates)} certificates"
        )
    codes.check_finite(names)
    if codes.labels is not None and model.num_classes:
        model.check_labels(codes.labels, len(codes))
    elif codes.labels is not None:
        raise UserError(f"{type(model).__name__} is not class-conditional: expected codes without labels")
