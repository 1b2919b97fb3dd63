"""Whether a code found by an inverter can be edited: invert, edit, invert again, undo."""

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
    """Median PSNR, dB, between what codes bring back and what is left after an edit and its undoing.

    The first codes move by 3σ along one random direction of their space, are drawn, rounded to bytes,
    inverted with one start and moved back. Infinite where nothing is lost; not a number where a code alone
    does not make its picture (tuned weights, replaced activations), so that moving it is no edit.
    """
    if found.weights or found.activations:
        return math.nan
    if not found.drawn[:IMAGES].all():
        return math.nan  # black against black would look like nothing lost
    decoder = in_own_precision(model, found)
    codes = found.codes[:IMAGES].to(decoder)
    step = step_in(model, codes.space, seed).to(codes.values)
    noise = [each[:IMAGES] for each in found.noise]
    edited, finite = reconstruct_checked(decoder, codes.with_values(codes.values + step), noise)
    again = inverter.single().invert(model, edited, torch.Generator().manual_seed(seed), codes.labels)
    if not (finite & again.drawn).all():
        return math.nan
    decoder = in_own_precision(model, again)
    moved = again.codes.to(decoder)
    undone = reconstruct(decoder, moved.with_values(moved.values - step.to(moved.values)), again.noise)
    return float(psnr(found.reconstruction[:IMAGES], undone).median())


def step_in(model: LatentModel, space: str, seed: int) -> Tensor:
    """A step of 3σ along one random direction of a space, (D,), σ the spread of every coordinate."""
    middle, spread = extent(model, space, codes=1000)
    direction = torch.randn(middle.shape, generator=torch.Generator().manual_seed(seed)).to(middle)
    return SIGMAS * spread * direction / direction.norm()
