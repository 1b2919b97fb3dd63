"""Bits per dimension, the only place that divides by D·ln 2, and the importance-weighted bound."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.data.base import Batch, Split
from flows.errors import NonFinite
from flows.models.base import LatentModel, LikelihoodModel
from flows.numerics import evaluating, exact_arithmetic
from flows.once import prepared

NOISE_SEED = 0
"""Seed of the dequantisation noise in evaluations, so that two of them are the same number."""


def bits_per_dim(log_prob: Tensor, dimensions: int) -> Tensor:
    """Nats per image, of any shape, to bits per dimension: −log P / (D·ln 2)."""
    return -log_prob / (dimensions * math.log(2))


@dataclass(frozen=True)
class LikelihoodReport:
    """Likelihood of a split of a data set.

    Attributes:
        images: how many were evaluated.
        bits_per_dim: mean over them, an upper bound by uniform or variational dequantisation.
        standard_error: of that mean.
        terms: bits/dim of each term of the bound; they sum to `bits_per_dim`.
        iwbo: tighter bound in bits/dim by `iwbo_samples` importance samples, or None.
        iwbo_samples: see `iwbo`.
    """

    images: int
    bits_per_dim: float
    standard_error: float
    terms: dict[str, float]
    iwbo: float | None = None
    iwbo_samples: int = 0


@torch.no_grad()
def evaluate_likelihood(
    model: LikelihoodModel, split: Split, images: int | None = None, batch: int = 128, iwbo_samples: int = 0
) -> LikelihoodReport:
    """Bits/dim of the first `images` images of a split (all where None), in the model's own precision.

    Raises:
        FloatingPointError: a likelihood is not finite; the message names the image. Nothing is skipped.
    """
    totals: dict[str, float] = {}
    per_image, bounds = [], []
    with prepared(), evaluating(model), exact_arithmetic(model.device):
        for part in batches(split, images, batch):
            part = part.to(model.device)
            generator = torch.Generator().manual_seed(NOISE_SEED)
            likelihood = model(part.images, labels_for(model, part), generator, part.keys.tolist())
            check_finite(likelihood.log_prob, part.keys)
            per_image.append(likelihood.log_prob.double())
            for name, value in likelihood.terms.items():
                totals[name] = totals.get(name, 0.0) + float(value.double().sum())
            if iwbo_samples:
                bounds.append(importance_weighted(model, part, iwbo_samples))
    dimensions = math.prod(model.image_shape)
    bits = bits_per_dim(torch.cat(per_image), dimensions)
    return LikelihoodReport(
        images=len(bits),
        bits_per_dim=float(bits.mean()),
        standard_error=float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else 0.0,
        terms={
            name: float(bits_per_dim(torch.tensor(total / len(bits)), dimensions))
            for name, total in totals.items()
        },
        iwbo=float(bits_per_dim(torch.cat(bounds), dimensions).mean()) if bounds else None,
        iwbo_samples=iwbo_samples,
    )


@torch.no_grad()
def importance_weighted(model: LikelihoodModel, part: Batch, samples: int) -> Tensor:
    """log (1/k Σ p(x_k)/q(x_k)) over k dequantisations (Burda et al. 2016): (batch,), nats.

    At least as tight as the mean of the same k bounds, and exact in the limit.
    """
    labels, keys = labels_for(model, part), part.keys.tolist()
    draws = []
    for k in range(samples):
        generator = torch.Generator().manual_seed(NOISE_SEED + 1 + k)
        with evaluating(model), exact_arithmetic(model.device):
            draws.append(model(part.images, labels, generator, keys).log_prob.double())
        check_finite(draws[-1], part.keys)
    return torch.logsumexp(torch.stack(draws), 0) - math.log(samples)


def batches(split: Split, images: int | None, batch: int) -> Iterator[Batch]:
    """The first `images` images of a split, in order, in batches."""
    count = len(split) if images is None else min(images, len(split))
    for start in range(0, count, batch):
        yield split.__getitems__(list(range(start, min(start + batch, count))))


def labels_for(model: LatentModel, part: Batch) -> Tensor | None:
    """The labels where the model is class-conditional."""
    return part.labels if model.num_classes else None


def check_finite(log_prob: Tensor, keys: Tensor) -> None:
    """Raise FloatingPointError naming the first image whose likelihood is not finite."""
    bad = ~log_prob.isfinite()
    if bad.any():
        key = int(keys[bad.cpu()][0])
        raise NonFinite(f"the likelihood of image {key} is {float(log_prob[bad][0])}")
