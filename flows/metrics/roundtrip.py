"""Does an image come back? Errors of decode(encode(image)), per image and per level of the code."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows import images as pixels
from flows.models.base import LatentModel
from flows.numerics import exact_arithmetic
from flows.once import prepared

Precision = dict[str, torch.dtype]
PRECISIONS: Precision = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class RoundTrip:
    """What happened to each image of a batch.

    Attributes:
        code: (batch, ...), as encoded.
        reconstruction: uint8 (batch, C, H, W).
        error: (batch,), largest |x − decode(encode(x))| on the [0, 1] scale; infinite where not finite.
        finite: (batch,) bool, neither code nor reconstruction has an infinity or NaN.
        bit_exact: (batch,) bool, every byte is the one that went in.
        level_error: level name to (batch,), largest |encode(decode(z)) − z| over that level's part.
    """

    code: Tensor
    reconstruction: Tensor
    error: Tensor
    finite: Tensor
    bit_exact: Tensor
    level_error: dict[str, Tensor]


@torch.no_grad()
def round_trip(
    model: LatentModel, images: Tensor, labels: Tensor | None = None, per_level: bool = True
) -> RoundTrip:
    """Encode and decode uint8 images (batch, C, H, W) in the precision of the model's parameters.

    Images are compared as the model sees them, reduced to its number of grey levels.
    """
    x = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
    with exact_arithmetic(model.device):
        code = model.encode(x, labels=labels)
        back = model.decode(code, labels=labels)
    reconstruction = pixels.to_bytes(back, model.bins)
    same = reconstruction == pixels.reduce(images, model.bins).to(model.device)
    levels = {}
    if per_level:
        # Beyond [0, 1] only by the error itself, which clamping cannot hide: `error` is taken before it.
        with exact_arithmetic(model.device):
            again = model.encode(torch.nan_to_num(back, nan=0.5).clamp(0, 1), labels=labels)
        parts = model.spaces["z"].levels.items()
        levels = {name: _largest(again[:, part] - code[:, part]) for name, part in parts}
    finite = code.flatten(1).isfinite().all(1) & back.flatten(1).isfinite().all(1)
    exact = same.flatten(1).all(1) & finite
    return RoundTrip(code, reconstruction, _largest(back - x), finite, exact, levels)


def _largest(difference: Tensor) -> Tensor:
    """Largest magnitude per example, infinite where anything is not finite."""
    infinite = float("inf")
    return torch.nan_to_num(difference.abs(), nan=infinite, posinf=infinite).flatten(1).amax(1)


def in_precision(model: LatentModel, precision: str) -> LatentModel:
    """The model itself where it has that precision already, otherwise a converted copy."""
    dtype = PRECISIONS[precision]
    return model if model.dtype == dtype else copy.deepcopy(model).to(dtype)


@dataclass(frozen=True)
class RoundTripRow:
    """One line of a round-trip report: a group of images in one precision.

    Attributes:
        group: name of the images.
        precision: "fp32" or "fp64".
        images: how many.
        max_error, median_error: over the images' own largest errors, on the [0, 1] scale.
        bit_exact: share of images returned with every byte as it was, in [0, 1].
        finite: no code and no reconstruction contained an infinity or NaN.
        level_error: largest error of the code per level.
    """

    group: str
    precision: str
    images: int
    max_error: float
    median_error: float
    bit_exact: float
    finite: bool
    level_error: dict[str, float]


def summarise(group: str, precision: str, trips: Iterable[RoundTrip]) -> RoundTripRow:
    """One row from the batches of a group."""
    trips = list(trips)
    error = torch.cat([trip.error for trip in trips])
    exact = torch.cat([trip.bit_exact for trip in trips])
    levels = {
        name: float(max(trip.level_error[name].max() for trip in trips)) for name in trips[0].level_error
    }
    return RoundTripRow(
        group=group,
        precision=precision,
        images=len(error),
        max_error=float(error.max()),
        median_error=float(error.median()),
        bit_exact=float(exact.double().mean()),
        finite=all(bool(trip.finite.all()) for trip in trips),
        level_error=levels,
    )


def round_trip_table(
    model: LatentModel,
    groups: Mapping[str, tuple[Tensor, Tensor | None]],
    limits: Mapping[str, int | None],
    batch: int = 128,
) -> Iterator[RoundTripRow]:
    """One row per group and precision.

    Args:
        model: in any precision.
        groups: name to (uint8 images (n, C, H, W), labels or None).
        limits: "fp32" and "fp64" to how many images of each group to take; None takes all. Leave a
            precision out to skip it.
        batch: images at a time.
    """
    for precision, limit in limits.items():
        converted = in_precision(model, precision)
        for name, (images, labels) in groups.items():
            pairs = zip(
                images[:limit].split(batch),
                [None] * len(images) if labels is None else labels[:limit].split(batch),
                strict=False,
            )
            with prepared():
                trips = [_without_pictures(round_trip(converted, part, some)) for part, some in pairs]
            yield summarise(name, precision, trips)


def _without_pictures(trip: RoundTrip) -> RoundTrip:
    """Drop code and reconstruction: ten thousand of them need not be held for a summary."""
    return replace(trip, code=torch.empty(0), reconstruction=torch.empty(0))
