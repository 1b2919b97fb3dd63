"""Report section of LIA: reconstructions of held-out images, and the accuracy of φ."""

from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.display.page import as_fixed
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.models.base import LatentModel
from flows.models.lia import LIA
from flows.reports.section import Section
from flows.training.objectives.lia_measures import COLUMNS, encode_and_decode, in_pairs, phi_figures

BATCH, STEPS = 250, 8


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
    return Section(values, lia_lines(values, len(images) > 1), pictures)


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
    return pixels.sheet(torch.cat(rows), STEPS + 2)


def lia_lines(values: dict[str, Any], interpolated: bool = True) -> list[str]:
    """Lines of a model card on the values of `lia_section`, with its pictures."""
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
