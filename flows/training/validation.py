"""Evaluation during training: held-out bits/dim, round trip, and samples from fixed codes."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flows import images as pixels
from flows.data.base import Split
from flows.metrics.likelihood import evaluate_likelihood, labels_if_conditional
from flows.metrics.roundtrip import round_trip
from flows.models.base import LatentModel, LikelihoodModel

TEMPERATURES = (0.0, 0.5, 0.7, 0.8, 1.0)


def validate(model: LikelihoodModel, split: Split, images: int | None) -> dict[str, float]:
    """Bits/dim and its terms, and the largest round-trip error on data and on noise, for the log."""
    report = evaluate_likelihood(model, split, images)
    values = {"validation/bits_per_dim": report.bits_per_dim}
    values |= {f"validation/terms/{name}": value for name, value in report.terms.items()}
    held = split.first(16).to(model.device)
    generator = torch.Generator().manual_seed(0)
    noise = torch.randint(256, held.images.shape, dtype=torch.uint8, generator=generator)
    labels = labels_if_conditional(model, held)
    for name, pictures in {"data": held.images, "noise": noise.to(model.device)}.items():
        trip = round_trip(model, pictures, labels, per_level=False)
        values[f"roundtrip/{name}"] = float(trip.error.max())
    return values


def sample_sheet(
    model: LatentModel, temperatures: Sequence[float] = TEMPERATURES, columns: int = 10, seed: int = 0
) -> Tensor:
    """Sheet of samples, one row per temperature, from the same codes: uint8 (C, height, width)."""
    rows = [generate(model, columns, temperature, seed) for temperature in temperatures]
    return pixels.sheet(torch.cat(rows), columns)


def generate(
    model: LatentModel, n: int, temperature: float, seed: int = 0, labels: Tensor | None = None
) -> Tensor:
    """Generate n samples from the prior, as measurements need them: uint8 (n, C, H, W) on the host.

    Args:
        model: Model to sample from.
        n: Number of samples.
        temperature: Temperature of the codes.
        seed: Seed of the codes.
        labels: (n,), classes of the images that the samples are compared with; only class-conditional models
            use them. None cycles through the classes.
    """
    labels = labels if model.num_classes else None
    return model.generate(n, model.prior_space.name, seed, temperature, labels).pixels
