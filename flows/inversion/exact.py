"""Exact inversion: codes in one pass, with a certificate that they reconstruct the images."""

from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.once import prepared
from flows.errors import Unsupported, UserError
from flows.inversion.base import BATCH, Inversion, Inverter, now
from flows.metrics.roundtrip import PRECISIONS, Precision, RoundTrip, in_precision, round_trip
from flows.models.base import LatentModel
from flows.models.codes import Codes, LabelsLike, as_labels

__all__ = ["Certificate", "Exact", "ExactInversion", "decode_exactly", "invert_exactly"]


@dataclass(frozen=True)
class Certificate:
    """Certificate of one image's code.

    Attributes:
        bit_exact: Whether every byte of the reconstruction equals the image, reduced to the model's grey
            levels.
        error: Largest |x − decode(encode(x))|, pixels in [0, 1].
        precision: Precision in which the code was computed and must be decoded, "fp32" or "fp64".
        certified: Whether the code is bit-exact with an error of at most `margin`, so that other machines
            reconstruct the same bytes.
    """

    bit_exact: bool
    error: float
    precision: Precision
    certified: bool


@dataclass(frozen=True)
class ExactInversion:
    """Codes of a batch of images, with reconstruction and certificates.

    Attributes:
        codes: Codes in fp64; values of precision fp32 are exactly float32 numbers.
        reconstruction: uint8 (batch, C, H, W).
        certificates: One certificate per image.
    """

    codes: Codes
    reconstruction: Tensor
    certificates: list[Certificate]


def margin(bins: int) -> float:
    """Largest error that a certificate accepts: a third of half a bin, pixels in [0, 1].

    A byte changes at half a bin. The other two thirds are left for differences between machines, threads and
    batch sizes, whose convolutions add in different orders.
    """
    return 0.5 / 3 / bins


def invert_exactly(
    model: LatentModel, images: pixels.ImageLike, labels: LabelsLike | None = None
) -> ExactInversion:
    """Encode images and certify each; images not certified in fp32 are encoded again in fp64.

    Args:
        model: Model with an exact inverse.
        images: uint8 (n, C, H, W), or other images that `flows.images.as_bytes` accepts; encoded in batches.
        labels: n integers, classes of the images, for a class-conditional model; inferred where they are
            None or −1.

    Raises:
        Unsupported: The guarantee of the model's prior space is not "exact".
        UserError: The images do not fit the model.
    """
    space = model.prior_space
    if not space.exact:
        raise Unsupported(
            f"{type(model).__name__} has no exact inverse: its guarantee is {space.guarantee!r}"
        )
    images = pixels.as_bytes(images, model.image_shape)
    known = None if labels is None else as_labels(labels)
    classes = model.labels_to_encode(images, known, space.name)
    code = torch.empty(len(images), *space.shape, dtype=torch.float64)
    reconstruction = torch.empty_like(images, device="cpu")
    certificates: dict[int, Certificate] = {}
    pending = list(range(len(images)))
    for precision in PRECISIONS:
        encoder = in_precision(model, precision) if pending else model
        with prepared():
            for rows in (pending[i : i + BATCH] for i in range(0, len(pending), BATCH)):
                batch_labels = None if classes is None else classes[rows]
                trip = round_trip(encoder, images[rows], batch_labels, per_level=False)
                code[rows], reconstruction[rows] = trip.codes.values.double().cpu(), trip.reconstruction.cpu()
                certificates |= zip(rows, _certify(trip, precision, margin(model.bins)), strict=True)
        pending = [i for i in pending if not certificates[i].certified]
    codes = Codes(code, space.name, None if classes is None else classes.cpu())
    return ExactInversion(codes, reconstruction, [certificates[i] for i in range(len(images))])


def _certify(trip: RoundTrip, precision: Precision, limit: float) -> list[Certificate]:
    pairs = zip(trip.bit_exact.tolist(), trip.error.tolist(), strict=True)
    return [Certificate(exact, error, precision, exact and error <= limit) for exact, error in pairs]


@torch.no_grad()
def decode_exactly(model: LatentModel, codes: Codes, precisions: list[Precision]) -> Tensor:
    """Decode codes, each in its own precision, "fp32" or "fp64": uint8 (n, C, H, W) on the host.

    Raises:
        UserError: There is not one precision per code.
    """
    if len(precisions) != len(codes) or not set(precisions) <= set(PRECISIONS):
        raise UserError(
            f"precisions: expected {len(codes)} of {', '.join(PRECISIONS)}, one per code; got {precisions!r}"
        )
    images = torch.empty(len(codes), *model.image_shape, dtype=torch.uint8)
    for precision in PRECISIONS:
        rows = [i for i, code_precision in enumerate(precisions) if code_precision == precision]
        if rows:
            images[rows] = in_precision(model, precision).decode_bytes(codes[rows], BATCH)
    return images


def in_own_precision(model: LatentModel, found: Inversion) -> LatentModel:
    """Return the model in the precision that an inversion's codes need: a copy in fp64 if any code does."""
    return in_precision(model, "fp64") if "fp64" in found.precision else model


class Exact(Inverter):
    """Inversion by the exact inverse; images not certified in fp32 are encoded again in fp64."""

    name = "exact"
    short_names = {"exact": ()}

    def space_of(self, model: LatentModel) -> str:
        return model.prior_space.name

    def why_not(self, model: LatentModel) -> str:
        space = model.prior_space
        return "" if space.exact else f"it has no exact inverse, its guarantee is {space.guarantee!r}"

    def invert(
        self,
        model: LatentModel,
        images: pixels.ImageLike,
        generator: torch.Generator | None = None,
        labels: LabelsLike | None = None,
    ) -> Inversion:
        images = self.check(model, images)
        start = now(model)
        exact = invert_exactly(model, images, labels)
        seconds = now(model) - start
        precision = [certificate.precision for certificate in exact.certificates]
        finite = torch.tensor([certificate.error for certificate in exact.certificates]).isfinite()
        return Inversion(
            method=self.name,
            codes=exact.codes,
            noise=[],
            reconstruction=exact.reconstruction,
            seconds=seconds,
            precision=precision,
            finite=finite,
        )
