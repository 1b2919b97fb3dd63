"""Codes to edit, from files of every kind: code files, arrays, records of inversions and of edits."""

from pathlib import Path

import torch

from flows.editing.records import load_history
from flows.errors import UserError
from flows.inversion.codes import load_codes
from flows.inversion.found import Found, found_in
from flows.inversion.records import load_record
from flows.metrics.roundtrip import Precision
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.storage.files import StrPath
from flows.storage.versioned import read_metadata

__all__ = ["read_found"]


def read_found(path: StrPath, model: LatentModel, space: str | None = None) -> Found:
    """Read codes from a code file, an array, a record of `flows compare`, or a record of edits.

    Args:
        path: File of codes; see `load_codes` for arrays.
        model: Model of the codes.
        space: Latent space of an array that does not state it; None takes the only one that fits.

    Raises:
        CheckpointError: The file is missing, altered, of another kind, or belongs to another model.
        UserError: An array fits no space of the model, or several; or a record of edits has strokes that are
            not in its code.
    """
    metadata = read_metadata(path)
    if "record_version" in metadata:
        found = found_in(load_record(path, model), model)
    elif "history_version" in metadata:
        found = _of_history(Path(path), model)
    else:
        contents = load_codes(path, model, space)
        certificates = contents.certificates
        precision = [each.precision for each in certificates] or precisions_of(contents.codes)
        return Found(
            codes=contents.codes, names=contents.names, precision=precision, certificates=certificates
        )
    return found


def precisions_of(codes: Codes) -> list[Precision]:
    """Precision of each fp64 code: fp32 if its values are float32 numbers; empty for codes in fp32."""
    values = codes.values
    if values.dtype != torch.float64:
        return []
    single = (values == values.float().double()).all(1).tolist()
    return ["fp32" if each else "fp64" for each in single]


def _of_history(path: Path, model: LatentModel) -> Found:
    history, _ = load_history(path, model)
    if history.stages[-1].earlier:
        raise UserError(f"{path}: its strokes are not in its code; `flows studio` continues from it")
    adaptation = history.start.adaptation
    return Found(
        codes=history.codes.cpu(), names=[path.stem], adaptations=() if adaptation is None else [adaptation]
    )
