"""Round trip: errors of decode(encode(image)), per image and per level of the code."""

import copy
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.numerics import double_copy, exact_arithmetic, to_double
from flows.core.once import prepared
from flows.models.base import LatentModel
from flows.models.codes import Codes, LabelsLike

__all__ = ["RoundTrip", "RoundTripRow", "round_trip", "round_trip_table"]

Precision = Literal["fp32", "fp64"]
"""Name of a precision."""
PRECISIONS: dict[Precision, torch.dtype] = {"fp32": torch.float32, "fp64": torch.float64}


@dataclass(frozen=True)
class RoundTrip:
    """Result of a round trip of a batch of images.

    Attributes:
        codes: Codes of the images.
        reconstruction: uint8 (batch, C, H, W).
        error: (batch,), largest |x − decode(encode(x))|, pixels in [0, 1]; infinite where not finite.
        finite: (batch,) bool, whether code and reconstruction are free of infinities and NaN.
        bit_exact: (batch,) bool, whether every byte equals the input.
        level_error: Name of a level to (batch,), largest |encode(decode(z)) − z| over this level's part.
    """

    codes: Codes
    reconstruction: Tensor
    error: Tensor
    finite: Tensor
    bit_exact: Tensor
    level_error: dict[str, Tensor]


@torch.no_grad()
def round_trip(
    model: LatentModel,
    images: pixels.ImageLike,
    labels: LabelsLike | None = None,
    per_level: bool = True,
) -> RoundTrip:
    """Encode and decode images, as in `encode_bytes`, in the precision of the model's parameters.

    Images are compared as the model sees them, reduced to its number of grey levels.
    """
    space = model.prior_space
    images = pixels.as_bytes(images, model.image_shape)
    codes = model.encode_bytes(images, space.name, labels, max(1, len(images)))
    x = pixels.to_unit(images, model.bins, model.dtype).to(model.device)
    with exact_arithmetic(model.device):
        decoded = model.decode_codes(codes)
    reconstruction = pixels.to_bytes(decoded, model.bins)
    same = reconstruction == pixels.reduce(images, model.bins).to(model.device)
    levels = {}
    if per_level:
        # Values leave [0, 1] only by the error, which clamping does not hide, because `error` is not clamped.
        with exact_arithmetic(model.device):
            again = model.encode(torch.nan_to_num(decoded, nan=0.5).clamp(0, 1), space.name, codes.labels)
        levels = {
            name: _largest(again[:, part] - codes.values[:, part]) for name, part in space.levels.items()
        }
    finite = codes.values.isfinite().all(1) & decoded.flatten(1).isfinite().all(1)
    exact = same.flatten(1).all(1) & finite
    return RoundTrip(codes, reconstruction, _largest(decoded - x), finite, exact, levels)


def _largest(difference: Tensor) -> Tensor:
    """Largest magnitude per example; infinite if any value is not finite."""
    infinite = float("inf")
    return torch.nan_to_num(difference.abs(), nan=infinite, posinf=infinite).flatten(1).amax(1)


def in_precision(model: LatentModel, precision: Precision) -> LatentModel:
    """Return the model if it has this precision already, else a converted copy."""
    dtype = PRECISIONS[precision]
    if model.dtype == dtype:
        return model
    return double_copy(model) if dtype == torch.float64 else copy.deepcopy(model).to(dtype)


@dataclass(frozen=True)
class RoundTripRow:
    """Row of a round-trip table: a group of images in one precision.

    Attributes:
        group: Name of the group.
        precision: Name of the precision, "fp32" or "fp64".
        images: Number of images.
        max_error, median_error: Maximum and median over images of `RoundTrip.error`, pixels in [0, 1].
        bit_exact: Share of bit-exact reconstructions, in [0, 1].
        finite: Whether all codes and reconstructions are free of infinities and NaN.
        level_error: Name of a level to the largest error of its part of the code.
    """

    group: str
    precision: Precision
    images: int
    max_error: float
    median_error: float
    bit_exact: float
    finite: bool
    level_error: dict[str, float]


def summarise(group: str, precision: Precision, trips: Iterable[RoundTrip]) -> RoundTripRow:
    """Combine the batches of a group into one row."""
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
        bit_exact=float(to_double(exact).mean()),
        finite=all(bool(trip.finite.all()) for trip in trips),
        level_error=levels,
    )


def round_trip_table(
    model: LatentModel,
    groups: Mapping[str, tuple[Tensor, Tensor | None]],
    limits: Mapping[Precision, int | None],
    batch: int = 128,
) -> Iterator[RoundTripRow]:
    """Generate one row per group and precision.

    Args:
        model: Model, in any precision.
        groups: Name of a group to (uint8 images (n, C, H, W), labels or None).
        limits: Precision, "fp32" or "fp64", to the number of images per group; None uses all. A precision
            that is not listed is skipped.
        batch: Images per batch.
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
    """Drop code and reconstruction, which a summary of ten thousand images need not hold in memory."""
    return replace(trip, codes=trip.codes[:0], reconstruction=torch.empty(0))
