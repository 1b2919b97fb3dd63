"""Report section of LIA: reconstructions of held-out images, and the accuracy of φ."""

from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.models.base import LatentModel
from flows.models.lia import LIA
from flows.numerics import double_copy, to_double
from flows.page import as_fixed
from flows.training.gan_report import Section
from flows.training.validation import sheet_of

BATCH, COLUMNS, STEPS = 250, 10, 8


def lia_section(model: LatentModel, images: Tensor) -> Section:
    """Create the report section of LIA, measured on uint8 test images (n, C, H, W)."""
    assert isinstance(model, LIA)
    w, reconstruction = encode_and_decode(model, images)
    quality = psnr(images, reconstruction)
    values = {
        "reconstruction": {
            "images": len(images),
            "psnr_median": float(quality.median()),
            "psnr_mean": float(quality.mean()),
            "psnr_worst": float(quality.min()),
            "ssim": structural_similarity(images, reconstruction),
        },
        "phi": phi_figures(model, w),
        "cycle": cycle_figures(model),
    }
    pictures = {
        "reconstructions.png": in_pairs(images[: 4 * COLUMNS], reconstruction[: 4 * COLUMNS]),
    }
    if len(images) > 1:
        pictures["interpolations.png"] = interpolations(model, images[:12])
    return Section(values, _lines(values, len(images) > 1), pictures)


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


@torch.no_grad()
def cycle_figures(model: LIA, n: int = 1000) -> dict[str, float]:
    """Cycle z → image → encoder → z: median error relative to |z|, and median PSNR of the images."""
    z = model.sample_codes(n, generator=torch.Generator().manual_seed(5))
    samples = torch.cat([pixels.to_bytes(model.decode(part), model.bins).cpu() for part in z.split(BATCH)])
    w, reconstruction = encode_and_decode(model, samples)
    again = model.convert(w, "w", "z")
    return {
        "z_error": float(((again - z).norm(dim=1) / z.norm(dim=1)).median()),
        "image_psnr": float(psnr(samples, reconstruction).median()),
    }


@torch.no_grad()
def interpolations(model: LIA, images: Tensor) -> Tensor:
    """Rows from one real image to another, with images along the straight line between their codes in w."""
    w, _ = encode_and_decode(model, images)
    share = torch.linspace(0, 1, STEPS, device=w.device)[:, None]
    rows = []
    for i in range(0, len(images) - 1, 2):
        line = model.decode(torch.lerp(w[i : i + 1], w[i + 1 : i + 2], share), "w")
        rows += [images[i : i + 1], pixels.to_bytes(line, model.bins).cpu(), images[i + 1 : i + 2]]
    return sheet_of(torch.cat(rows), STEPS + 2)


def in_pairs(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Sheet of rows of images, each above the reconstructions of its images; the last may be short."""
    columns = min(COLUMNS, len(images))
    rows = zip(images.split(columns), reconstruction.split(columns), strict=True)
    return sheet_of(torch.cat([filled(part, columns) for row in rows for part in row]), columns)


def filled(row: Tensor, columns: int) -> Tensor:
    """Row of images, uint8 (n, C, H, W), filled with white ones to a number of columns."""
    return torch.cat([row, row.new_full((columns - len(row), *row.shape[1:]), 255)])


def _lines(values: dict[str, Any], interpolated: bool = True) -> list[str]:
    interpolation = [
        "![interpolations](interpolations.png)",
        "",
        "Linear interpolation in w from one test image (left) to another (right).",
        "",
    ]
    quality, phi, cycle = values["reconstruction"], values["phi"], values["cycle"]
    return [
        "## Reconstruction",
        "",
        "![reconstructions](reconstructions.png)",
        "",
        f"Encoder and generator on {quality['images']:,} test images: PSNR {quality['psnr_median']:.1f} dB "
        f"(median) and {quality['psnr_worst']:.1f} dB (worst), SSIM {quality['ssim']:.3f}. Each pair shows "
        "an image above its reconstruction.",
        "",
        *(interpolation if interpolated else ["There is one test image: no interpolation.", ""]),
        f"Round trip of φ on the codes of these images: largest error {phi['round_trip_fp32']:.1e} in fp32, "
        f"{phi['round_trip_fp64']:.1e} in fp64; largest |log-determinant| {phi['largest_log_det']:.1e}. "
        f"z = φ(E(x)) has mean square {phi['z_mean_square']:.2f}; the std of its coordinates is between "
        f"{as_fixed(phi['z_std_least'], '.2f')} and {as_fixed(phi['z_std_largest'], '.2f')}.",
        "",
        f"Cycle z → image → encoder → z: the median error of z is {100 * cycle['z_error']:.0f} % of |z|; the "
        f"median PSNR of the image is {cycle['image_psnr']:.1f} dB.",
        "",
    ]
