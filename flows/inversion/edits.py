"""Edits of found codes: edit consistency, and the figures of an edit that is compared with a true one."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flows.inversion.base import Inversion, Inverter
from flows.inversion.found import found_by
from flows.inversion.optimise import extent
from flows.metrics.reconstruction import psnr
from flows.models.base import LatentModel

IMAGES, SIGMAS = 4, 3.0


@dataclass(frozen=True, kw_only=True)
class EditFigures:
    """Figures of one edit of n inverted images, which is compared with a true one.

    Attributes:
        direction: Name of the direction that the codes were moved along.
        images: Number n of images; those without the factor are left out.
        unedited: Median PSNR of the images themselves to the true edit, dB.
        reached: Mean share of the requested change of the factor that a predictor reads from the edited
            images, in [0, 1].
        leakage: Largest mean change of another score, relative to that of the own score, both in std.
        psnr: Median PSNR of the edited images to the true edit, dB.
        low, high: 95 % interval of `psnr`.
        back: Median PSNR, to the images themselves, of edited images that were inverted again and moved back,
            dB.
    """

    direction: str
    images: int
    unedited: float = math.nan
    reached: float = math.nan
    leakage: float = math.nan
    psnr: float = math.nan
    low: float = math.nan
    high: float = math.nan
    back: float = math.nan


@dataclass(frozen=True)
class Edited:
    """Edit of n inverted images with its pictures.

    Attributes:
        figures: Figures of the edit.
        rows: int64 (n,), numbers of the images.
        target: uint8 (n, C, H, W), true edit.
        images: uint8 (n, C, H, W), images of the moved codes.
        undone: uint8 (m, C, H, W), the first m images after the edit, another inversion and the move back.
    """

    figures: EditFigures
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.int64))
    target: Tensor = field(default_factory=lambda: torch.empty(0))
    images: Tensor = field(default_factory=lambda: torch.empty(0))
    undone: Tensor = field(default_factory=lambda: torch.empty(0))


def edit_consistency(model: LatentModel, inverter: Inverter, found: Inversion, seed: int = 0) -> float:
    """Median PSNR, dB, between reconstructions and the images after an edit and its undoing.

    The first four codes are moved by 3σ along one random direction of their space, decoded with what the
    search changed besides them (tuned weights, noise inputs, activations), rounded to bytes, inverted with
    one restart, moved back and decoded. The result is infinite if nothing is lost, and NaN if a
    reconstruction is not finite.
    """
    if not found.succeeded[:IMAGES].all():
        return math.nan  # two black images would look identical
    names = [str(i) for i in range(len(found.codes))]
    here = found_by(found, names, model).first(IMAGES)
    step = step_in(model, here.codes.space, seed).to(here.codes.values)
    ((edited, finite),) = here.decode_checked(model, [here.codes.with_values(here.codes.values + step)])
    random = torch.Generator().manual_seed(seed)
    again = inverter.single().invert(model, edited, random, here.codes.labels)
    if not (finite & again.succeeded).all():
        return math.nan
    there = found_by(again, here.names, model)
    back = there.codes.with_values(there.codes.values - step.to(there.codes.values))
    (undone,) = there.decode_moved(model, [back])
    return float(psnr(found.reconstruction[:IMAGES], undone).median())


def step_in(model: LatentModel, space: str, seed: int) -> Tensor:
    """Return a step of 3σ along one random direction of a space, (D,); σ is the std of each coordinate."""
    mean, std = extent(model, space, codes=1000)
    direction = torch.randn(mean.shape, generator=torch.Generator().manual_seed(seed)).to(mean)
    return SIGMAS * std * direction / direction.norm()
