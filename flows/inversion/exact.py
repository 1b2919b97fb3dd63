"""Exact inversion: an image's code in one pass, and a certificate that it brings the image back."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.metrics.roundtrip import PRECISIONS, RoundTrip, in_precision, round_trip
from flows.models.base import LatentModel


@dataclass(frozen=True)
class Certificate:
    """What is known about one image's code.

    Attributes:
        bit_exact: decoding returned every byte of the image, as reduced to the model's grey levels.
        error: largest |x − decode(encode(x))| on the [0, 1] scale.
        precision: in which the code was computed and must be decoded, "fp32" or "fp64".
    """

    bit_exact: bool
    error: float
    precision: str


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
    """A quarter of a bin: the largest error that a certificate in fp32 accepts.

    Half a bin is where a byte changes. The other quarter is for what differs between two machines or two
    batch sizes, whose convolutions add in other orders.
    """
    return 0.25 / bins


def invert(model: LatentModel, images: Tensor, labels: Tensor | None = None) -> ExactInversion:
    """Encode uint8 images (batch, C, H, W) and certify each; what fp32 misses is encoded again in fp64.

    Args:
        model: with an exact inverse.
        images: bytes.
        labels: (batch,), for a class-conditional model.

    Raises:
        ValueError: the model's guarantee for its space is not "exact", or the images do not fit it.
    """
    if model.guarantee["z"] != "exact":
        raise ValueError(
            f"{type(model).__name__} has no exact inverse: its guarantee is {model.guarantee['z']!r}"
        )
    pixels.check_bytes(images, model.image_shape)
    first = round_trip(in_precision(model, "fp32"), images, labels, per_level=False)
    code, reconstruction = first.code.double(), first.reconstruction.clone()
    certificates = _certify(first, "fp32")
    missed = [
        i for i, given in enumerate(certificates) if not given.bit_exact or given.error > margin(model.bins)
    ]
    if missed:
        some = None if labels is None else labels[missed]
        second = round_trip(in_precision(model, "fp64"), images[missed], some, per_level=False)
        code[missed], reconstruction[missed] = second.code, second.reconstruction
        for i, given in zip(missed, _certify(second, "fp64"), strict=True):
            certificates[i] = given
    return ExactInversion(code, reconstruction, certificates)


def _certify(trip: RoundTrip, precision: str) -> list[Certificate]:
    pairs = zip(trip.bit_exact.tolist(), trip.error.tolist(), strict=True)
    return [Certificate(exact, error, precision) for exact, error in pairs]


@torch.no_grad()
def restore(model: LatentModel, code: Tensor, precisions: list[str], labels: Tensor | None = None) -> Tensor:
    """Decode codes (batch, D), each in the precision of its certificate: uint8 (batch, C, H, W)."""
    result = torch.empty(len(code), *model.image_shape, dtype=torch.uint8)
    for precision, dtype in PRECISIONS.items():
        rows = [i for i, wanted in enumerate(precisions) if wanted == precision]
        if rows:
            some = None if labels is None else labels[rows]
            decoder = in_precision(model, precision)
            images = decoder.decode(code[rows].to(dtype).to(model.device), labels=some)
            result[rows] = pixels.to_bytes(images, model.bins).cpu()
    return result
