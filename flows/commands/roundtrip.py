"""`flows roundtrip`: check that test and out-of-distribution images are reconstructed bit for bit."""

from dataclasses import asdict
from pathlib import Path

from flows.commands.common import check_outputs, write_json
from flows.core.bounds import NonNegativeInt, PositiveInt
from flows.data.base import ImageData
from flows.inversion.exact import invert_exactly, margin
from flows.metrics.roundtrip import Precision, RoundTripRow, round_trip_table
from flows.models.base import LikelihoodModel
from flows.opening import data_of, load_likelihood
from flows.reports.figures import draw_round_trip
from flows.reports.flow import (
    DOUBLE_PRECISION_IMAGES,
    ImageGroups,
    round_trip_figures,
    round_trip_groups,
    verdict,
)


def roundtrip(
    checkpoint: str,
    data: ImageData | None = None,
    images: PositiveInt | None = None,
    images_fp64: NonNegativeInt = DOUBLE_PRECISION_IMAGES,
    levels: bool = False,
    picture: Path | None = None,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Encode and decode test images and a suite of out-of-distribution images, in fp32 and in fp64.

    Args:
        checkpoint: Folder or name of the model.
        data: Data set; None takes the one that the model was trained on.
        images: Number of test images in fp32; None takes all.
        images_fp64: Maximum number of images per group in fp64; 0 skips fp64.
        levels: Whether to print the error of each level of the code as well.
        picture: Picture file for one image of every group above its reconstruction.
        json: File for the result, which includes the errors of the levels.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(picture=picture, option="--picture", json=json)
    model = load_likelihood(checkpoint, device)
    groups = round_trip_groups(model, data_of(model, data), images)
    limits: dict[Precision, int | None] = {"fp32": None}
    if images_fp64:
        limits["fp64"] = images_fp64
    rows = list(round_trip_table(model, groups, limits))
    round_trip_figures(rows).print()
    if levels:
        for row in rows:
            parts = ", ".join(f"{name} {error:.0e}" for name, error in row.level_error.items())
            print(f"{row.precision} {row.group}: code, {parts}")
    print(verdict(rows))
    escalated, certified, total = _certify(model, groups, rows)
    print(
        f"certified (error at most {margin(model.bins):.0e}; {escalated} images were encoded again in fp64): "
        f"{certified:,} of {total:,}"
    )
    if picture is not None:
        draw_round_trip(model, {name: pictures for name, (pictures, _) in groups.items()}, picture)
    result = {
        "checkpoint": checkpoint,
        "fingerprint": model.fingerprint(),
        "rows": [asdict(row) for row in rows],
        "escalated": escalated,
        "certified": certified,
        "images": total,
    }
    write_json(json, result)


def _certify(model: LikelihoodModel, groups: ImageGroups, rows: list[RoundTripRow]) -> tuple[int, int, int]:
    """Number of images that were encoded again in fp64, of certified images, and of all images."""
    escalated, certified, total = 0, 0, 0
    for row in rows:
        if row.precision != "fp32":
            continue
        pictures, labels = groups[row.group]
        pictures = pictures[: row.images]
        total += len(pictures)
        if row.bit_exact == 1 and row.max_error <= margin(model.bins):
            certified += len(pictures)  # the table already contains the result of `invert_exactly`
            continue
        given = invert_exactly(model, pictures, None if labels is None else labels[: row.images]).certificates
        escalated += sum(one.precision == "fp64" for one in given)
        certified += sum(one.certified for one in given)
    return escalated, certified, total
