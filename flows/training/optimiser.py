"""Optimisers and learning-rate schedules."""

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from flows.training.settings import Training


def make_optimiser(
    params: Iterable[nn.Parameter], training: Training, betas: tuple[float, float] | None = None
) -> torch.optim.Optimizer:
    """Create the optimiser of the settings for `params`; `betas` replaces the betas of the settings."""
    betas = betas or training.betas
    # Plain floats: numbers from the command line have a class that a training state may not contain.
    given = {"lr": training.lr, "eps": training.epsilon, "weight_decay": training.weight_decay}
    common: dict[str, Any] = {name: float(value) for name, value in given.items()}
    if training.optimiser == "rmsprop":
        momentum, averaging = betas
        return torch.optim.RMSprop(params, momentum=momentum, alpha=averaging, **common)
    if training.optimiser == "adamax":
        return torch.optim.Adamax(params, betas=betas, **common)
    # Fused: one pass over each parameter instead of a dozen.
    kind = torch.optim.Adam if training.optimiser == "adam" else torch.optim.AdamW
    return kind(params, betas=betas, fused=True, **common)


def learning_rate(training: Training, images_seen: int, span: tuple[int, float] = (0, math.inf)) -> float:
    """Learning rate of the step after `images_seen` images: linear warm-up, then the decay of the settings.

    It depends only on the number of images, so it needs no saved state, and no wrapper can step it once per
    process. Warm-up and decay extend over the `span` of images, by default the whole run.
    """
    first, last = span[0], min(span[1], training.images)
    images_seen -= first
    if images_seen < training.warmup:
        return training.lr * (images_seen + training.batch) / (training.warmup + training.batch)
    share = (images_seen - training.warmup) / max(1, last - first - training.warmup)
    share = min(share, 1.0)
    if training.decay == "cosine":
        swing = 0.5 * (1 + math.cos(math.pi * share))
        return training.final_lr + (training.lr - training.final_lr) * swing
    if training.decay == "exponential":
        return training.lr * (training.final_lr / training.lr) ** share
    return training.lr


def set_learning_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of every parameter group."""
    for group in optimiser.param_groups:
        group["lr"] = rate
