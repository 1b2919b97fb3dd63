"""Records: files that reproduce the result of an inversion byte for byte."""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from flows.errors import CheckpointError
from flows.files import StrPath, write_atomically
from flows.images import Box
from flows.inversion.base import Inversion, reconstruct
from flows.inversion.exact import decode_exactly
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.versioned import check_made_by, read_versioned

__all__ = ["ImageSource", "Record", "load_record", "record_of", "render_record", "save_record"]

RECORD_VERSION = 1


@dataclass(frozen=True)
class ImageSource:
    """Source of an image.

    Attributes:
        name: Name of the file, or of the image in its group.
        size: (width, height) of the upright picture that was cropped and resized; None otherwise.
        box: Part of the picture that was kept; None otherwise.
    """

    name: str
    size: tuple[int, int] | None = None
    box: Box | None = None


@dataclass(frozen=True, kw_only=True)
class Record:
    """Contents of a record file; `render_record` reproduces the images.

    Attributes:
        method, codes, noise, activations, weights, precision: Fields of `Inversion`.
        seed: Seed of the inversion.
        sources: One source per code.
        digest: SHA-256 of the reconstruction.
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
    """Create the record of an inversion with its seed."""
    return Record(
        method=found.method,
        codes=found.codes,
        seed=seed,
        sources=sources,
        digest=digest_of(found.reconstruction),
        noise=found.noise,
        activations=found.activations,
        weights=found.weights,
        precision=found.precision,
    )


def render_record(model: LatentModel, record: Record) -> Tensor:
    """Reproduce the images of a record: uint8 (n, C, H, W) on the host."""
    if record.precision:
        return decode_exactly(model, record.codes, record.precision)
    codes = record.codes.to(model.device)
    noise = [layer_noise.to(model.device) for layer_noise in record.noise]
    activations = {name: value.to(model.device) for name, value in record.activations.items()}
    if not record.weights:
        return reconstruct(model, codes, noise, activations)
    images = []
    for i, weights in enumerate(record.weights):
        tuned = copy.deepcopy(model)
        tuned.load_state_dict(weights, strict=False)
        images.append(reconstruct(tuned, codes[i : i + 1], [layer_noise[i : i + 1] for layer_noise in noise]))
    return torch.cat(images)


def digest_of(images: Tensor) -> str:
    """Return the SHA-256 of uint8 images."""
    return hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).hexdigest()


# Files --------------------------------------------------------------------------------------------


def save_record(path: StrPath, record: Record, model: LatentModel) -> None:
    """Write a safetensors file that only `model` will accept."""
    tensors = {"code": record.codes.values}
    if record.codes.labels is not None:
        tensors["labels"] = record.codes.labels
    tensors |= {f"noise.{i}": value for i, value in enumerate(record.noise)}
    tensors |= {f"activations.{name}": value for name, value in record.activations.items()}
    for i, weights in enumerate(record.weights):
        tensors |= {f"weights.{i}.{name}": value for name, value in weights.items()}
    header = {
        "model_type": type(model).__name__,
        "fingerprint": model.fingerprint(),
        "method": record.method,
        "space": record.codes.space,
        "seed": record.seed,
        "precision": record.precision,
        "sources": [asdict(source) for source in record.sources],
        "digest": record.digest,
    }
    metadata = {"record_version": str(RECORD_VERSION), "record": json.dumps(header)}
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, lambda target: save_file(whole, target, metadata=metadata))


def load_record(path: StrPath, model: LatentModel) -> Record:
    """Read a record file.

    Raises:
        CheckpointError: The file is missing, altered, not a record, or belongs to another model.
    """
    metadata, tensors = read_versioned(path, "record", "record", RECORD_VERSION, "flows compare")
    try:
        header = json.loads(metadata["record"])
        fingerprint, model_type = header["fingerprint"], header["model_type"]
        record = _read(header, tensors)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path} was altered: its contents are inconsistent ({error})") from error
    check_made_by(path, "codes", model, fingerprint, model_type)
    model.check_code(record.codes.values, record.codes.space)
    return record


def _read(header: dict[str, Any], tensors: dict[str, Tensor]) -> Record:
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
    codes = Codes(tensors["code"], header["space"], tensors.get("labels"))
    sources = [_source(fields) for fields in header["sources"]]
    counts = {len(codes), len(sources), len(weights) or len(codes), len(header["precision"]) or len(codes)}
    if len(counts) != 1:
        raise ValueError(f"{len(codes)} codes, {len(sources)} sources")
    return Record(
        method=header["method"],
        codes=codes,
        seed=header["seed"],
        sources=sources,
        digest=header["digest"],
        noise=[noise[i] for i in range(len(noise))],
        activations=activations,
        weights=[weights[i] for i in range(len(weights))],
        precision=header["precision"],
    )


def _source(fields: dict[str, Any]) -> ImageSource:
    size, box = fields["size"], fields["box"]
    return ImageSource(
        fields["name"], None if size is None else (size[0], size[1]), None if box is None else tuple(box)
    )
