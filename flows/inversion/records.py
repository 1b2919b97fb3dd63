"""Records: all that it takes to draw the result of an inversion again, byte for byte, in one file."""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from flows.errors import CheckpointError
from flows.files import write_atomically
from flows.images import Box
from flows.inversion.base import Inversion, reconstruct
from flows.inversion.exact import decode_exactly
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.versioned import check_made_by, read_versioned

RECORD_VERSION = 1


@dataclass(frozen=True)
class ImageSource:
    """Where an image came from.

    Attributes:
        name: of the file, or of the image in its group.
        size: (width, height) of an upright picture that was cropped and resized, otherwise None.
        box: the part of it that was kept.
    """

    name: str
    size: tuple[int, int] | None = None
    box: Box | None = None


@dataclass(frozen=True)
class Record:
    """The contents of a record file; `render` draws it.

    Attributes:
        method, codes, noise, activations, weights, precision: Fields of `Inversion`.
        seed: of everything random in the search.
        sources: one for every code.
        digest: SHA-256 of the bytes that came back.
    """

    method: str
    codes: Codes
    seed: int
    sources: list[ImageSource]
    digest: str
    noise: list[Tensor] = field(default_factory=list)
    activations: dict[str, Tensor] = field(default_factory=dict)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    precision: list[str] = field(default_factory=list)


def record_of(found: Inversion, sources: list[ImageSource], seed: int) -> Record:
    """The record of an inversion that began from this seed."""
    return Record(
        found.method, found.codes, seed, sources, digest_of(found.reconstruction), found.noise,
        found.activations, found.weights, found.precision,
    )  # fmt: skip


def render_record(model: LatentModel, record: Record) -> Tensor:
    """Draw the images of a record again: uint8 (n, C, H, W)."""
    if record.precision:
        return decode_exactly(model, record.codes, record.precision)
    codes = record.codes.to(model.device)
    noise = [each.to(model.device) for each in record.noise]
    put = {name: value.to(model.device) for name, value in record.activations.items()}
    if not record.weights:
        return reconstruct(model, codes, noise, put)
    found = []
    for i, weights in enumerate(record.weights):
        tuned = copy.deepcopy(model)
        tuned.load_state_dict(weights, strict=False)
        found.append(reconstruct(tuned, codes[i : i + 1], [each[i : i + 1] for each in noise]))
    return torch.cat(found)


def digest_of(images: Tensor) -> str:
    """SHA-256 of uint8 images."""
    return hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest()


# Files --------------------------------------------------------------------------------------------


def save_record(path: Path, record: Record, model: LatentModel) -> None:
    """Write a safetensors file that only `model` will accept."""
    tensors = {"code": record.codes.values}
    if record.codes.labels is not None:
        tensors["labels"] = record.codes.labels
    tensors |= {f"noise.{i}": each for i, each in enumerate(record.noise)}
    tensors |= {f"activations.{name}": each for name, each in record.activations.items()}
    for i, weights in enumerate(record.weights):
        tensors |= {f"weights.{i}.{name}": each for name, each in weights.items()}
    told = {
        "model_type": type(model).__name__,
        "fingerprint": model.fingerprint(),
        "method": record.method,
        "space": record.codes.space,
        "seed": record.seed,
        "precision": record.precision,
        "sources": [asdict(source) for source in record.sources],
        "digest": record.digest,
    }
    metadata = {"record_version": str(RECORD_VERSION), "record": json.dumps(told)}
    whole = {name: each.detach().cpu().contiguous().clone() for name, each in tensors.items()}
    write_atomically(path, lambda target: save_file(whole, target, metadata=metadata))


def load_record(path: Path, model: LatentModel) -> Record:
    """Read a record file.

    Raises:
        CheckpointError: missing, no record, altered, or of another model; the message has both fingerprints.
    """
    metadata, tensors = read_versioned(path, "record", "record", RECORD_VERSION, "flows compare")
    try:
        told = json.loads(metadata["record"])
        fingerprint, model_type = told["fingerprint"], told["model_type"]
        record = _read(told, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was altered: its contents do not fit together ({error})") from error
    check_made_by(path, "codes", model, fingerprint, model_type)
    model.check_code(record.codes.values, record.codes.space)
    return record


def _read(told: dict[str, Any], tensors: dict[str, Tensor]) -> Record:
    noise, activations = {}, {}
    weights: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "noise":
            noise[int(rest)] = value
        elif kind == "activations":
            activations[rest] = value
        elif kind == "weights":
            number, _, parameter = rest.partition(".")
            weights.setdefault(int(number), {})[parameter] = value
    codes = Codes(tensors["code"], told["space"], tensors.get("labels"))
    sources = [_source(given) for given in told["sources"]]
    counts = {len(codes), len(sources), len(weights) or len(codes), len(told["precision"]) or len(codes)}
    if len(counts) != 1:
        raise ValueError(f"{len(codes)} codes, {len(sources)} sources")
    return Record(
        told["method"], codes, told["seed"], sources, told["digest"],
        [noise[i] for i in range(len(noise))], activations, [weights[i] for i in range(len(weights))],
        told["precision"],
    )  # fmt: skip


def _source(given: dict[str, Any]) -> ImageSource:
    size, box = given["size"], given["box"]
    return ImageSource(
        given["name"], None if size is None else (size[0], size[1]), None if box is None else tuple(box)
    )
