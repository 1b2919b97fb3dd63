"""Exact inversion: an image's code in one pass, and a certificate that it brings the image back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.errors import Unsupported
from flows.inversion.base import CLASS_UNKNOWN, Inversion, Inverter, now
from flows.metrics.roundtrip import PRECISIONS, RoundTrip, in_precision, round_trip
from flows.models.base import LatentModel
from flows.numerics import exact_arithmetic
from flows.once import prepared

BATCH = 128
"""Images encoded or decoded at a time."""


@dataclass(frozen=True)
class Certificate:
    """What is known about one image's code.

    Attributes:
        bit_exact: decoding returned every byte of the image, as reduced to the model's grey levels.
        error: largest |x − decode(encode(x))| on the [0, 1] scale.
        precision: in which the code was computed and must be decoded, "fp32" or "fp64".
        certified: bit-exact with an error within `margin`, so that another machine returns it, too.
    """

    bit_exact: bool
    error: float
    precision: str
    certified: bool


@dataclass(frozen=True)
class ExactInversion:
    """Codes of a batch of images.

    Attributes:
        code: (batch, D) in fp64; a code of precision fp32 is a float32 number exactly.
        reconstruction: uint8 (batch, C, H, W), what decoding gave.
        certificates: one per image.
    """

    code: Tensor
    reconstruction: Tensor
    certificates: list[Certificate]


def margin(bins: int) -> float:
    """A quarter of a bin: the largest error that a certificate accepts.

    Half a bin is where a byte changes. The other quarter is for what differs between two machines or two
    batch sizes, whose convolutions add in other orders.
    """
    return 0.25 / bins


def invert_exactly(model: LatentModel, images: Tensor, labels: Tensor | None = None) -> ExactInversion:
    """Encode uint8 images (batch, C, H, W) and certify each; what fp32 misses is encoded again in fp64.

    Args:
        model: with an exact inverse.
        images: bytes; any number, worked through in parts.
        labels: (batch,), for a class-conditional model.

    Raises:
        ValueError: the model's guarantee for its space is not "exact", or the images do not fit it.
    """
    if model.guarantee["z"] != "exact":
        kind = model.guarantee["z"]
        raise Unsupported(f"{type(model).__name__} has no exact inverse: its guarantee is {kind!r}")
    pixels.check_bytes(images, model.image_shape)
    size = model.spaces["z"].shape[0]
    code = torch.empty(len(images), size, dtype=torch.float64)
    reconstruction = torch.empty_like(images, device="cpu")
    certificates: dict[int, Certificate] = {}
    left = list(range(len(images)))
    for precision in PRECISIONS:
        encoder = in_precision(model, precision) if left else model
        with prepared():
            for rows in (left[i : i + BATCH] for i in range(0, len(left), BATCH)):
                some = None if labels is None else labels[rows]
                trip = round_trip(encoder, images[rows], some, per_level=False)
                code[rows], reconstruction[rows] = trip.code.double().cpu(), trip.reconstruction.cpu()
                certificates |= zip(rows, _certify(trip, precision, margin(model.bins)), strict=True)
        left = [i for i in left if not certificates[i].certified]
    return ExactInversion(code, reconstruction, [certificates[i] for i in range(len(images))])


def _certify(trip: RoundTrip, precision: str, limit: float) -> list[Certificate]:
    pairs = zip(trip.bit_exact.tolist(), trip.error.tolist(), strict=True)
    return [Certificate(exact, error, precision, exact and error <= limit) for exact, error in pairs]


@torch.no_grad()
def decode_exactly(
    model: LatentModel, code: Tensor, precisions: list[str], labels: Tensor | None = None
) -> Tensor:
    """Decode codes (batch, D), each in the precision of its certificate: uint8 (batch, C, H, W)."""
    result = torch.empty(len(code), *model.image_shape, dtype=torch.uint8)
    for precision, dtype in PRECISIONS.items():
        wanted = [i for i, given in enumerate(precisions) if given == precision]
        decoder = in_precision(model, precision) if wanted else model
        with prepared(), exact_arithmetic(model.device):
            for rows in (wanted[i : i + BATCH] for i in range(0, len(wanted), BATCH)):
                some = None if labels is None else labels[rows]
                images = decoder.decode(code[rows].to(dtype).to(model.device), labels=some)
                result[rows] = pixels.to_bytes(images, model.bins).cpu()
    return result


def in_own_precision(model: LatentModel, found: Inversion) -> LatentModel:
    """The model in the precision that a result's codes need: a copy in fp64 where one of them does."""
    return in_precision(model, "fp64") if "fp64" in found.precision else model


class Exact(Inverter):
    """The exact inverse, in one pass; what fp32 does not bring back is encoded again in fp64."""

    name = "exact"

    def why_not(self, model: LatentModel) -> str:
        if model.num_classes:
            return CLASS_UNKNOWN
        guarantee = model.guarantee["z"]
        return "" if guarantee == "exact" else f"its guarantee is {guarantee!r}, it has no exact inverse"

    def invert(
        self, model: LatentModel, images: Tensor, generator: torch.Generator | None = None
    ) -> Inversion:
        self.check(model, images)
        start = now(model)
        found = invert_exactly(model, images)
        seconds = now(model) - start
        precision = [given.precision for given in found.certificates]
        finite = torch.tensor([given.error for given in found.certificates]).isfinite()
        return Inversion(
            self.name, "z", found.code, [], found.reconstruction, seconds, precision=precision, finite=finite
        )
