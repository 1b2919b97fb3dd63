"""Edit consistency of an inverter: invert, edit, invert again, undo the edit."""

import math

import torch
from torch import Tensor

from flows.inversion.base import Inversion, Inverter, reconstruct, reconstruct_checked
from flows.inversion.exact import in_own_precision
from flows.inversion.optimise import extent
from flows.metrics.reconstruction import psnr
from flows.models.base import LatentModel

IMAGES, SIGMAS = 4, 3.0


def edit_consistency(model: LatentModel, inverter: Inverter, found: Inversion, seed: int = 0) -> float:
    """Median PSNR, dB, between reconstructions and the images after an edit and its undoing.

    The first four codes are moved by 3σ along one random direction of their space, decoded, rounded to bytes,
    inverted with one restart, moved back and decoded. The result is infinite if nothing is lost. It is NaN if
    a reconstruction is not finite, or if the code alone does not determine the image (tuned weights, replaced
    activations).
    """
    if found.weights or found.activations:
        return math.nan
    if not found.succeeded[:IMAGES].all():
        return math.nan  # two black images would look identical
    decoder = in_own_precision(model, found)
    codes = found.codes[:IMAGES].to(decoder)
    step = step_in(model, codes.space, seed).to(codes.values)
    noise = [layer_noise[:IMAGES] for layer_noise in found.noise]
    edited, finite = reconstruct_checked(decoder, codes.with_values(codes.values + step), noise)
    again = inverter.single().invert(model, edited, torch.Generator().manual_seed(seed), codes.labels)
    if not (finite & again.succeeded).all():
        return math.nan
    decoder = in_own_precision(model, again)
    moved = again.codes.to(decoder)
    undone = reconstruct(decoder, moved.with_values(moved.values - step.to(moved.values)), again.noise)
    return float(psnr(found.reconstruction[:IMAGES], undone).median())


def step_in(model: LatentModel, space: str, seed: int) -> Tensor:
    """Return a step of 3σ along one random direction of a space, (D,); σ is the std of each coordinate."""
    mean, std = extent(model, space, codes=1000)
    direction = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean)
    return SIGMAS * std * direction / direction.norm()
