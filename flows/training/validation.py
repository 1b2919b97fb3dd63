"""What a run looks at between steps: held-out bits/dim, the round trip, samples from fixed codes."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from flows import images as pixels
from flows.data.base import Split
from flows.metrics.likelihood import evaluate_likelihood, labels_for
from flows.metrics.roundtrip import round_trip
from flows.models.base import LatentModel, LikelihoodModel
from flows.numerics import exact_arithmetic

BATCH = 100
"""Samples decoded at a time."""
TEMPERATURES = (0.0, 0.5, 0.7, 0.8, 1.0)


def validate(model: LikelihoodModel, split: Split, images: int | None) -> dict[str, float]:
    """Bits/dim with its terms, and the largest round-trip error on data and on noise, for the log."""
    report = evaluate_likelihood(model, split, images)
    values = {"validation/bits_per_dim": report.bits_per_dim}
    values |= {f"validation/terms/{name}": value for name, value in report.terms.items()}
    held = split.first(16).to(model.device)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, held.images.shape, dtype=torch.uint8, generator=generator)
    labels = labels_for(model, held)
    for name, pictures in {"data": held.images, "noise": noise.to(model.device)}.items():
        trip = round_trip(model, pictures, labels, per_level=False)
        values[f"roundtrip/{name}"] = float(trip.error.max())
    return values


def sample_sheet(
    model: LatentModel, temperatures: Sequence[float] = TEMPERATURES, columns: int = 10, seed: int = 0
) -> Tensor:
    """A sheet of samples, one row per temperature, from the same codes: uint8 (C, height, width)."""
    rows = [draw(model, columns, temperature, seed) for temperature in temperatures]
    return sheet_of(torch.cat(rows), columns)


def sheet_of(pictures: Tensor, columns: int) -> Tensor:
    """Pictures, uint8 (n, C, H, W), in rows, each enlarged to about 64 pixels: uint8 (C, height, width)."""
    return pixels.grid(pictures, columns, zoom=max(1, round(64 / pictures.shape[2])))


@torch.no_grad()
def draw(
    model: LatentModel, n: int, temperature: float, seed: int = 0, labels: Tensor | None = None
) -> Tensor:
    """n samples, uint8 (n, C, H, W) on the host.

    Args:
        model: any.
        n: how many.
        temperature: of the codes.
        seed: of the codes.
        labels: (n,), for a class-conditional model, which otherwise goes through its classes.
    """
    generator = torch.Generator().manual_seed(seed)
    codes = model.sample_codes(n, generator=generator, temperature=temperature)
    classes: list[Tensor] | list[None] = [None] * math.ceil(n / BATCH)
    if model.num_classes:
        given = torch.arange(n) % model.num_classes if labels is None else labels
        classes = list(given.to(model.device).split(BATCH))
    with exact_arithmetic(model.device):
        return torch.cat([
            pixels.to_bytes(model.decode(part, labels=which), model.bins).cpu()
            for part, which in zip(codes.split(BATCH), classes, strict=True)
        ])  # fmt: skip
