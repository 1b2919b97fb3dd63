"""Records of histories: upload, crop, code and edits in one file that reproduces the picture bit for bit."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.schema import parse, read_json, unaltered
from flows.dissection.paint import StrokeEdit
from flows.dissection.probe import Change, layers_of
from flows.editing.history import Edit, History, Start
from flows.errors import UserError
from flows.images import Box
from flows.inversion.found import Adaptation
from flows.inversion.records import digest_of
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.storage.files import StrPath, without_folders
from flows.storage.tensor_files import save_tensors
from flows.storage.versioned import check_made_by, read_metadata, read_versioned

__all__ = ["load_history", "save_history"]

HISTORY_VERSION = 2
LABEL = "told"
"""Key of an edit's label in the file."""
LONGEST = 10_000
"""Maximum number of edits that are written to a file, and read from one."""
ADAPTATION = "start."
"""Prefix of the names of the tensors that belong to the code of the start besides it."""


@dataclass(frozen=True)
class EditHeader:
    """Plain values of an edit: its label, the layers that it changes, and its settings."""

    label: str
    layers: list[str]
    settings: dict[str, Any]


@dataclass(frozen=True)
class Header:
    """Plain values of a record of edits; the tensors are those of `Start` and of the edits, by number."""

    model_type: str
    fingerprint: str
    space: str
    edits: list[dict[str, Any]]
    digest: str
    name: str
    seed: int
    checkpoint: str = ""
    box: Box | None = None
    method: str = ""


def save_history(path: StrPath, history: History, model: LatentModel, checkpoint: str = "") -> None:
    """Write a history to a safetensors file, which can be used with this model only.

    Args:
        path: File to write.
        history: History of a picture.
        model: Model that made the edits.
        checkpoint: Folder or name of the model, which `flows render` takes by default; stored by
            `portable`.

    Raises:
        UserError: The code is not finite, or there are more edits than a file holds.
    """
    start = history.start
    if len(history.edits) > LONGEST:
        raise UserError(f"a record holds at most {LONGEST} edits, this history has {len(history.edits)}")
    start.codes.check_finite()
    tensors = {"picture": start.picture, "code": start.codes.values}
    if start.codes.labels is not None:
        tensors["labels"] = start.codes.labels
    if start.upload is not None:
        tensors["upload"] = start.upload
    if start.adaptation is not None:
        tensors |= {ADAPTATION + name: value for name, value in start.adaptation.tensors().items()}
    edits = []
    for i, edit in enumerate(history.edits):
        layers: list[str] = []
        if edit.step is not None:
            tensors[f"{i}.step"] = edit.step
        if edit.stroke_edit is not None:
            tensors[f"{i}.where"] = edit.stroke_edit.where
            for j, (layer, change) in enumerate(edit.stroke_edit.changes):
                layers.append(layer)
                tensors[f"{i}.{j}.amount"], tensors[f"{i}.{j}.value"] = change.amount, change.value
        edits.append({LABEL: edit.label, "layers": layers, "settings": dict(edit.settings)})
    header = {
        "model_type": type(model).__name__,
        "fingerprint": model.fingerprint(),
        "checkpoint": portable(checkpoint),
        "space": start.codes.space,
        "name": start.name,
        "seed": start.seed,
        "box": start.box,
        "edits": edits,
        "digest": digest_of(history.picture),
        "method": start.method,
    }
    # Earlier releases would leave the adaptation out.
    version = 1 if start.adaptation is None else HISTORY_VERSION
    metadata = {"history_version": str(version), "history": json.dumps(header)}
    whole = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    save_tensors(path, whole, metadata)


def portable(checkpoint: str) -> str:
    """Name of a checkpoint without folders of this machine: elsewhere than here, its own name alone."""
    path, here = Path(checkpoint), Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else without_folders(checkpoint)


def read_history_header(path: StrPath) -> Header | None:
    """Read the header of a record of edits.

    Returns:
        Header, or None if the file is no record of edits. The tensors are not read.

    Raises:
        CheckpointError: The file is a record of edits that was altered.
    """
    metadata = read_metadata(path)
    if "history_version" not in metadata:
        return None
    with unaltered(Path(path).name):
        return parse_header(metadata)


def load_history(path: StrPath, model: LatentModel) -> tuple[History, bool]:
    """Read a record and repeat its edits.

    Returns:
        History, and whether its picture has the same bytes as when it was saved.

    Raises:
        CheckpointError: The file is missing, no record of edits, altered, or of another model; the message
            then has both fingerprints.
    """
    metadata, tensors = read_versioned(path, "record of edits", "history", HISTORY_VERSION, "flows studio")
    name = Path(path).name
    with unaltered(name):
        header = parse_header(metadata)
    check_made_by(name, "edits", model, header.fingerprint, header.model_type)
    with unaltered(name):
        start = _start(header, tensors)
        pixels.check_bytes(start.picture[None], model.image_shape)
        model.check_code(start.codes.values, start.codes.space)
        start.codes.check_finite()
        if start.adaptation is not None:
            start.adaptation.check(model)
        if len(header.edits) > LONGEST:
            raise UserError(f"expected at most {LONGEST} edits, found {len(header.edits)}")
        edits = [_edit(i, each, tensors) for i, each in enumerate(edit_headers(header))]
        if not fits(start, edits, model):
            raise UserError("its edits do not have the shapes of the model")
    history = replace(History.of(start), edits=tuple(edits)).again(model)
    return history, digest_of(history.picture) == header.digest


def fits(start: Start, edits: Sequence[Edit], model: LatentModel) -> bool:
    """Whether the tensors of edits have the shapes of the start's code, of the image and of the layers."""
    one = start.codes.values.shape[:1] == (1,)
    steps = [edit.step.shape == start.codes.values.shape for edit in edits if edit.step is not None]
    strokes = [edit.stroke_edit for edit in edits if edit.stroke_edit is not None]
    regions = [tuple(each.where.shape) == tuple(model.image_shape[1:]) for each in strokes]
    layers = layers_of(model, start.codes.space) if strokes else {}
    changes = [
        layer in layers
        and broadcasts(change.amount, (1, layers[layer].channels, *layers[layer].size))
        and broadcasts(change.value, (1, layers[layer].channels, *layers[layer].size))
        for each in strokes
        for layer, change in each.changes
    ]
    return one and all(steps) and all(regions) and all(changes)


def broadcasts(part: Tensor, shape: tuple[int, ...]) -> bool:
    """Whether a tensor can be expanded to a shape."""
    missing = len(shape) - part.dim()
    return missing >= 0 and all(
        have in (1, want) for have, want in zip(part.shape, shape[missing:], strict=True)
    )


def parse_header(metadata: dict[str, str]) -> Header:
    """Read the header of a record of edits; raises UserError if it is incomplete or has other types."""
    header: Header = parse(Header, read_json(metadata.get("history", "")))
    return header


def edit_headers(header: Header) -> list[EditHeader]:
    """Plain values of all edits; raises UserError if they are incomplete or have other types."""
    renamed = [{"label" if key == LABEL else key: each[key] for key in each} for each in header.edits]
    return [parse(EditHeader, each, f"edits[{i}]") for i, each in enumerate(renamed)]


def _start(header: Header, tensors: dict[str, Tensor]) -> Start:
    picture, code, upload = (tensors.get(name) for name in ("picture", "code", "upload"))
    codes = Codes(parse(Tensor, code, "code"), header.space, tensors.get("labels"))
    if upload is not None:
        pixels.check_bytes(upload[None])
        if len(upload) not in (1, 3):
            raise UserError(f"upload: expected 1 or 3 channels, got {len(upload)}")
        left, top, right, bottom = header.box or (0, 0, 0, 0)
        if not (0 <= left < right <= upload.shape[2] and 0 <= top < bottom <= upload.shape[1]):
            raise UserError(f"box {header.box} is not within the upload")
    return Start(
        picture=parse(Tensor, picture, "picture"),
        codes=codes,
        name=header.name,
        seed=header.seed,
        upload=upload,
        box=header.box,
        method=header.method,
        adaptation=Adaptation.of_tensors(
            {name.removeprefix(ADAPTATION): tensors[name] for name in tensors if name.startswith(ADAPTATION)}
        ),
    )


def _change(number: str, tensors: dict[str, Tensor]) -> Change:
    names = (f"{number}.amount", f"{number}.value")
    amount, value = (parse(Tensor, tensors.get(name), name) for name in names)
    return Change(amount, value)


def _edit(i: int, header: EditHeader, tensors: dict[str, Tensor]) -> Edit:
    stroke_edit = None
    if f"{i}.where" in tensors:
        changes = [(layer, _change(f"{i}.{j}", tensors)) for j, layer in enumerate(header.layers)]
        stroke_edit = StrokeEdit(changes, tensors[f"{i}.where"].to(torch.bool))
    settings = dict(header.settings)
    if "sigmas" in settings:  # the page sets its sliders to them
        settings["sigmas"] = parse(dict[str, float], settings["sigmas"], f"edits[{i}].settings.sigmas")
    return Edit(header.label, tensors.get(f"{i}.step"), stroke_edit, settings)
