"""Records: files that reproduce the result of an inversion byte for byte."""

import copy
import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.schema import check_names, parse, read_json, unaltered
from flows.errors import UserError
from flows.images import Box
from flows.inversion.base import Inversion, reconstruct
from flows.inversion.exact import decode_exactly
from flows.metrics.roundtrip import Precision
from flows.models.base import HasNoise, LatentModel
from flows.models.codes import Codes
from flows.storage.files import StrPath
from flows.storage.tensor_files import save_tensors
from flows.storage.versioned import check_made_by, read_versioned

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

    def crop_text(self, image_shape: tuple[int, int, int]) -> str:
        """Describe the crop and its new size; empty if there was none. See `flows.images.crop_text`."""
        if self.size is None or self.box is None:
            return ""
        return pixels.crop_text(self.size, self.box, *image_shape[1:])


@dataclass(frozen=True, kw_only=True)
class Record:
    """Contents of a record file; `render_record` reproduces the images.

    Attributes:
        method, codes, noise, activations, weights, precision: Fields of `Inversion`.
        seed: Seed of the inversion.
        sources: One source per code.
        diverged: Names of the images that have no code, because every search for it diverged.
        digest: SHA-256 of the reconstruction.
    """

    method: str
    codes: Codes
    seed: int
    sources: list[ImageSource]
    digest: str
    diverged: list[str] = field(default_factory=list)
    noise: list[Tensor] = field(default_factory=list)
    activations: dict[str, Tensor] = field(default_factory=dict)
    weights: list[dict[str, Tensor]] = field(default_factory=list)
    precision: list[Precision] = field(default_factory=list)


class Parts(TypedDict):
    """Fields of a record that are tensors, besides its codes."""

    noise: list[Tensor]
    activations: dict[str, Tensor]
    weights: list[dict[str, Tensor]]


@dataclass(frozen=True)
class Header:
    """Plain values of a record file; `sources` may lack size and box."""

    model_type: str
    fingerprint: str
    method: str
    space: str
    seed: int
    precision: list[Precision]
    sources: list[ImageSource]
    digest: str
    diverged: list[str] = field(default_factory=list)


def record_of(found: Inversion, sources: list[ImageSource], seed: int) -> Record | None:
    """Create the record of an inversion with its seed.

    Returns:
        Record of the images whose inversion is finite; None if there are none.
    """
    succeeded = found.succeeded.tolist()
    rows = [i for i, good in enumerate(succeeded) if good]
    if not rows:
        return None
    return Record(
        method=found.method,
        codes=found.codes[rows],
        seed=seed,
        sources=[sources[i] for i in rows],
        digest=digest_of(found.reconstruction[rows]),
        diverged=[each.name for each, good in zip(sources, succeeded, strict=True) if not good],
        noise=[layer_noise[rows] for layer_noise in found.noise],
        activations={name: value[rows] for name, value in found.activations.items()},
        weights=[found.weights[i] for i in rows] if found.weights else [],
        precision=[found.precision[i] for i in rows] if found.precision else [],
    )


def render_record(model: LatentModel, record: Record) -> Tensor:
    """Reproduce the images of a record: uint8 (n, C, H, W) on the host."""
    if record.precision:
        return decode_exactly(model, record.codes, record.precision)
    codes = record.codes.to(model.device)
    noise = [layer_noise.to(model.device, model.dtype) for layer_noise in record.noise]
    activations = {name: value.to(model.device, model.dtype) for name, value in record.activations.items()}
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
    record.codes.check_finite([source.name for source in record.sources])
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
        "diverged": record.diverged,
    }
    metadata = {"record_version": str(RECORD_VERSION), "record": json.dumps(header)}
    whole = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    save_tensors(path, whole, metadata)


def load_record(path: StrPath, model: LatentModel) -> Record:
    """Read a record file.

    Raises:
        CheckpointError: The file is missing, altered, not a record, or belongs to another model.
    """
    metadata, tensors = read_versioned(path, "record", "record", RECORD_VERSION, "flows compare")
    with unaltered(path):
        header = parse(Header, read_json(metadata.get("record", "")))
    check_made_by(path, "codes", model, header.fingerprint, header.model_type)
    with unaltered(path):
        record = Record(
            method=header.method,
            codes=Codes(parse(Tensor, tensors.get("code"), "code"), header.space, tensors.get("labels")),
            seed=header.seed,
            sources=header.sources,
            digest=header.digest,
            diverged=header.diverged,
            precision=header.precision,
            **_parts(tensors),
        )
        check_fits(record, model)
    return record


def _parts(tensors: dict[str, Tensor]) -> Parts:
    """Noise, activations and weights, by the names of the tensors that `save_record` writes."""
    noise: dict[int, Tensor] = {}
    weights: dict[int, dict[str, Tensor]] = {}
    activations = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition(".")
        if kind == "noise":
            noise[_number(rest, name)] = value
        elif kind == "activations":
            activations[rest] = value
        elif kind == "weights":
            number, _, parameter = rest.partition(".")
            weights.setdefault(_number(number, name), {})[parameter] = value
    for kind, parts in (("noise", noise), ("weights", weights)):
        if sorted(parts) != list(range(len(parts))):
            raise UserError(f"{kind}: expected numbers 0 … {len(parts) - 1}, got {sorted(parts)}")
    return {
        "noise": [noise[i] for i in range(len(noise))],
        "activations": activations,
        "weights": [weights[i] for i in range(len(weights))],
    }


def _number(text: str, name: str) -> int:
    if not text.isdecimal():
        raise UserError(f"{name}: expected a number after the point")
    return int(text)


def check_fits(record: Record, model: LatentModel) -> None:
    """Raise UserError unless the tensors of a record have the shapes that the model decodes."""
    codes = record.codes
    model.check_code(codes.values, codes.space)
    codes.check_finite()
    counts = {
        "codes": len(codes),
        "sources": len(record.sources),
        "precision": len(record.precision) or len(codes),
        "weights": len(record.weights) or len(codes),
    }
    if set(counts.values()) != {len(codes)}:
        raise UserError(f"expected as many of each, got {counts}")
    check_names([source.name for source in record.sources])
    for source in record.sources:
        check_box(source)
    own = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    layers = {name: (len(codes), each.channels, *each.size) for name, each in model.layers().items()}
    noise = model.noise() if isinstance(model, HasNoise) else []
    for name, value in record.activations.items():
        check_tensor(f"activations.{name}", value, layers.get(name))
    if len(record.noise) not in (0, len(noise)):
        raise UserError(f"noise: expected none or {len(noise)} inputs, got {len(record.noise)}")
    for i, (value, stored) in enumerate(zip(record.noise, noise, strict=False)):
        check_tensor(f"noise.{i}", value, (len(codes), *stored.shape[1:]))
    for i, weights in enumerate(record.weights):
        for name, value in weights.items():
            check_tensor(f"weights.{i}.{name}", value, own.get(name))


def check_box(source: ImageSource) -> None:
    """Raise UserError unless the box of a source is within its picture."""
    if source.box is None:
        return
    (left, top, right, bottom), size = source.box, source.size
    if size is None or not (0 <= left < right <= size[0] and 0 <= top < bottom <= size[1]):
        raise UserError(f"sources: box {source.box} is not within the picture of size {size}")


def check_tensor(name: str, value: Tensor, expected: tuple[int, ...] | None) -> None:
    """Raise UserError unless a tensor of a record has this shape; None if the model has no such tensor."""
    if expected is None:
        raise UserError(f"{name}: the model has no such tensor")
    if tuple(value.shape) != tuple(expected):
        raise UserError(f"{name}: expected shape {tuple(expected)}, got {tuple(value.shape)}")
