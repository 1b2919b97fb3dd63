"""Figures and sheets of LIA: reconstructions of images, and the accuracy of φ."""

from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.numerics import double_copy, to_double
from flows.models.lia import LIA

COLUMNS = 10
"""Number of images per row of a sheet."""


@torch.no_grad()
def encode_and_decode(model: LIA, images: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in w of uint8 images, and their reconstructions, uint8 on the host."""
    codes = model.encode_bytes(images, "w")
    return codes.values, model.decode_bytes(codes)


@torch.no_grad()
def phi_figures(model: LIA, w: Tensor) -> dict[str, Any]:
    """Round-trip error and log-determinant of φ on codes w of images, and mean square and std of z = φ(w)."""
    double = double_copy(model.phi)
    z, log_det = model.phi(w)
    exact = double.inverse(double(to_double(w))[0])[0]
    std = z.std(0) if len(z) > 1 else torch.full_like(z[0], torch.nan)
    return {
        "round_trip_fp32": float((model.phi.inverse(z)[0] - w).abs().max()),
        "round_trip_fp64": float((exact - to_double(w)).abs().max()),
        "largest_log_det": float(log_det.abs().max()),
        "z_mean_square": float(z.square().mean()),
        "z_std_least": float(std.min()),
        "z_std_largest": float(std.max()),
    }


def in_pairs(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Sheet of rows of images, each above the reconstructions of its images; the last may be short."""
    columns = min(COLUMNS, len(images))
    rows = zip(images.split(columns), reconstruction.split(columns), strict=True)
    return pixels.sheet(torch.cat([filled(part, columns) for row in rows for part in row]), columns)


def filled(row: Tensor, columns: int) -> Tensor:
    """Row of images, uint8 (n, C, H, W), filled with white ones to a number of columns."""
    return torch.cat([row, row.new_full((columns - len(row), *row.shape[1:]), 255)])
