"""Bits per dimension and the importance-weighted bound; the only module that divides by D·ln 2."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from flows.core.numerics import evaluating, exact_arithmetic, to_double
from flows.core.once import prepared
from flows.data.base import Batch, Split
from flows.errors import NonFinite
from flows.models.base import LatentModel, LikelihoodModel

__all__ = ["LikelihoodReport", "bits_per_dim", "evaluate_likelihood"]

NOISE_SEED = 0
"""Seed of the dequantisation noise in evaluations, so that they can be repeated exactly."""


def bits_per_dim(log_prob: Tensor, dimensions: int) -> Tensor:
    """Convert log P in nats per image, of any shape, to bits per dimension: −log P / (D·ln 2)."""
    return -log_prob / (dimensions * math.log(2))


@dataclass(frozen=True)
class LikelihoodReport:
    """Likelihood of a split of a data set.

    Attributes:
        images: Number of images evaluated.
        bits_per_dim: Mean bits/dim, an upper bound by uniform or variational dequantisation.
        standard_error: Standard error of `bits_per_dim`.
        terms: Name of each term of the bound to bits/dim; they sum to `bits_per_dim`.
        iwbo: Importance-weighted bound in bits/dim, which is tighter, or None.
        iwbo_samples: Number of importance samples of `iwbo`.
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
    """Evaluate bits/dim of the first `images` images of a split (None uses all), in the model's precision.

    Raises:
        NonFinite: A likelihood is not finite; the message names the image. No image is skipped.
    """
    totals: dict[str, float] = {}
    per_image, bounds = [], []
    with prepared(), evaluating(model), exact_arithmetic(model.device):
        for part in batches(split, images, batch):
            part = part.to(model.device)
            generator = torch.Generator().manual_seed(NOISE_SEED)
            likelihood = model(part.images, labels_if_conditional(model, part), generator, part.keys.tolist())
            check_finite(likelihood.log_prob, part.keys, split)
            per_image.append(to_double(likelihood.log_prob))
            for name, value in likelihood.terms.items():
                totals[name] = totals.get(name, 0.0) + float(to_double(value).sum())
            if iwbo_samples:
                bounds.append(importance_weighted(model, part, iwbo_samples, split))
    dimensions = math.prod(model.image_shape)
    bits = bits_per_dim(torch.cat(per_image), dimensions)
    return LikelihoodReport(
        images=len(bits),
        bits_per_dim=float(bits.mean()),
        standard_error=float(bits.std() / math.sqrt(len(bits))) if len(bits) > 1 else math.nan,
        terms={
            name: float(bits_per_dim(torch.tensor(total / len(bits)), dimensions))
            for name, total in totals.items()
        },
        iwbo=float(bits_per_dim(torch.cat(bounds), dimensions).mean()) if bounds else None,
        iwbo_samples=iwbo_samples,
    )


@torch.no_grad()
def importance_weighted(
    model: LikelihoodModel, part: Batch, samples: int, split: Split | None = None
) -> Tensor:
    """Importance-weighted bound log (1/k Σ p(x_k)/q(x_k)) over k dequantisations: (batch,), nats.

    It is at least as tight as the mean of the same k bounds, and exact in the limit (Burda et al. 2016).
    """
    labels, keys = labels_if_conditional(model, part), part.keys.tolist()
    log_probs = []
    for k in range(samples):
        generator = torch.Generator().manual_seed(NOISE_SEED + 1 + k)
        with evaluating(model), exact_arithmetic(model.device):
            log_probs.append(to_double(model(part.images, labels, generator, keys).log_prob))
        check_finite(log_probs[-1], part.keys, split)
    return torch.logsumexp(torch.stack(log_probs), 0) - math.log(samples)


def batches(split: Split, images: int | None, batch: int) -> Iterator[Batch]:
    """Batches of the first `images` images of a split, in order; None uses all."""
    count = len(split) if images is None else min(images, len(split))
    for start in range(0, count, batch):
        yield split.__getitems__(list(range(start, min(start + batch, count))))


def labels_if_conditional(model: LatentModel, part: Batch) -> Tensor | None:
    """Labels of a batch if the model is class-conditional, else None."""
    return part.labels if model.num_classes else None


def check_finite(log_prob: Tensor, keys: Tensor, split: Split | None = None) -> None:
    """Raise NonFinite naming the first image, by the names of its split, whose likelihood is not finite."""
    bad = ~log_prob.isfinite()
    if bad.any():
        key = int(keys[bad.cpu()][0])
        image = f"image {key}" if split is None else split.name_of(key)
        raise NonFinite(f"the likelihood of {image} is {float(log_prob[bad][0])}")
