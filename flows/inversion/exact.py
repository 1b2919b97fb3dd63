"""Exact inversion: an image's code in one pass, and a certificate that it brings the image back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.errors import Unsupported
from flows.inversion.base import BATCH, Inversion, Inverter, now
from flows.metrics.roundtrip import PRECISIONS, RoundTrip, in_precision, round_trip
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.once import prepared


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
        codes: Codes in fp64; a code of precision fp32 is a float32 number exactly.
        reconstruction: uint8 (batch, C, H, W), what decoding gave.
        certificates: one per image.
    """

    codes: Codes
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
    space = model.prior_space
    if not space.exact:
        raise Unsupported(
            f"{type(model).__name__} has no exact inverse: its guarantee is {space.guarantee!r}"
        )
    pixels.check_bytes(images, model.image_shape)
    labels = model.labels_of(images, labels, space.name)
    code = torch.empty(len(images), *space.shape, dtype=torch.float64)
    reconstruction = torch.empty_like(images, device="cpu")
    certificates: dict[int, Certificate] = {}
    left = list(range(len(images)))
    for precision in PRECISIONS:
        encoder = in_precision(model, precision) if left else model
        with prepared():
            for rows in (left[i : i + BATCH] for i in range(0, len(left), BATCH)):
                some = None if labels is None else labels[rows]
                trip = round_trip(encoder, images[rows], some, per_level=False)
                code[rows], reconstruction[rows] = trip.codes.values.double().cpu(), trip.reconstruction.cpu()
                certificates |= zip(rows, _certify(trip, precision, margin(model.bins)), strict=True)
        left = [i for i in left if not certificates[i].certified]
    codes = Codes(code, space.name, None if labels is None else labels.cpu())
    return ExactInversion(codes, reconstruction, [certificates[i] for i in range(len(images))])


def _certify(trip: RoundTrip, precision: str, limit: float) -> list[Certificate]:
    pairs = zip(trip.bit_exact.tolist(), trip.error.tolist(), strict=True)
    return [Certificate(exact, error, precision, exact and error <= limit) for exact, error in pairs]


@torch.no_grad()
def decode_exactly(model: LatentModel, codes: Codes, precisions: list[str]) -> Tensor:
    """Decode codes, each in the precision of its certificate: uint8 (batch, C, H, W) on the host."""
    images = torch.empty(len(codes), *model.image_shape, dtype=torch.uint8)
    for precision in PRECISIONS:
        rows = [i for i, given in enumerate(precisions) if given == precision]
        if rows:
            images[rows] = in_precision(model, precision).decode_bytes(codes[rows], BATCH)
    return images


def in_own_precision(model: LatentModel, found: Inversion) -> LatentModel:
    """The model in the precision that a result's codes need: a copy in fp64 where one of them does."""
    return in_precision(model, "fp64") if "fp64" in found.precision else model


class Exact(Inverter):
    """The exact inverse, in one pass; what fp32 does not bring back is encoded again in fp64."""

    name = "exact"

    def space_of(self, model: LatentModel) -> str:
        return model.prior_space.name

    def why_not(self, model: LatentModel) -> str:
        space = model.prior_space
        return "" if space.exact else f"its guarantee is {space.guarantee!r}, it has no exact inverse"

    def invert(
        self,
        model: LatentModel,
        images: Tensor,
        generator: torch.Generator | None = None,
        labels: Tensor | None = None,
    ) -> Inversion:
        self.check(model, images)
        start = now(model)
        exact = invert_exactly(model, images, labels)
        seconds = now(model) - start
        precision = [given.precision for given in exact.certificates]
        finite = torch.tensor([given.error for given in exact.certificates]).isfinite()
        return Inversion(
            self.name, exact.codes, [], exact.reconstruction, seconds, precision=precision, finite=finite
        )
