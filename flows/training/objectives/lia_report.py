"""What LIA reports besides samples: what comes back of held-out images, and how exact φ is."""

import copy
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.models.base import LatentModel
from flows.models.lia import LIA
from flows.training.gan_report import Section
from flows.training.validation import sheet_of

BATCH, COLUMNS, STEPS = 250, 10, 8


def lia_section(model: LatentModel, images: Tensor) -> Section:
    """Figures and pictures on uint8 test images (n, C, H, W)."""
    assert isinstance(model, LIA)
    w, back = reconstruct(model, images)
    quality = psnr(images, back)
    values = {
        "reconstruction": {
            "images": len(images),
            "psnr_median": float(quality.median()),
            "psnr_mean": float(quality.mean()),
            "psnr_worst": float(quality.min()),
            "ssim": structural_similarity(images, back),
        },
        "phi": phi_figures(model, w),
        "cycle": cycle_figures(model),
    }
    pictures = {
        "reconstructions.png": in_pairs(images[: 4 * COLUMNS], back[: 4 * COLUMNS]),
        "interpolations.png": interpolations(model, images[:12]),
    }
    return Section(values, _lines(values), pictures)


@torch.no_grad()
def reconstruct(model: LIA, images: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in w of uint8 images, and what comes back of them, uint8 on the host."""
    codes, found = [], []
    for part in images.split(BATCH):
        w = model.encode(pixels.to_unit(part, model.bins, model.dtype).to(model.device), "w")
        codes.append(w)
        found.append(pixels.to_bytes(model.decode(w, "w"), model.bins).cpu())
    return torch.cat(codes), torch.cat(found)


@torch.no_grad()
def phi_figures(model: LIA, w: Tensor) -> dict[str, Any]:
    """Largest error of φ there and back on codes of images, log-determinant, and how normal z = φ(w) is."""
    double = copy.deepcopy(model.phi).double()
    z, log_det = model.phi(w)
    exact = double.inverse(double(w.double())[0])[0]
    spread = z.std(0)
    return {
        "round_trip_fp32": float((model.phi.inverse(z)[0] - w).abs().max()),
        "round_trip_fp64": float((exact - w.double()).abs().max()),
        "largest_log_det": float(log_det.abs().max()),
        "z_mean_square": float(z.square().mean()),
        "z_spread_least": float(spread.min()),
        "z_spread_largest": float(spread.max()),
    }


@torch.no_grad()
def cycle_figures(model: LIA, n: int = 1000) -> dict[str, float]:
    """z → image → encoder → z: median error relative to |z|, and of the image drawn from it."""
    z = model.sample_codes(n, generator=torch.Generator().manual_seed(5))
    drawn = torch.cat([pixels.to_bytes(model.decode(part), model.bins).cpu() for part in z.split(BATCH)])
    w, back = reconstruct(model, drawn)
    again = model.convert(w, "w", "z")
    return {
        "z_error": float(((again - z).norm(dim=1) / z.norm(dim=1)).median()),
        "image_psnr": float(psnr(drawn, back).median()),
    }


@torch.no_grad()
def interpolations(model: LIA, images: Tensor) -> Tensor:
    """Rows from one real image to another: both ends as they are, straight lines in w between their codes."""
    w, _ = reconstruct(model, images)
    share = torch.linspace(0, 1, STEPS, device=w.device)[:, None]
    rows = []
    for i in range(0, len(images) - 1, 2):
        line = model.decode(torch.lerp(w[i : i + 1], w[i + 1 : i + 2], share), "w")
        rows += [images[i : i + 1], pixels.to_bytes(line, model.bins).cpu(), images[i + 1 : i + 2]]
    return sheet_of(torch.cat(rows), STEPS + 2)


def in_pairs(images: Tensor, back: Tensor) -> Tensor:
    """A sheet of rows of images, each above what came back of it."""
    rows = zip(images.split(COLUMNS), back.split(COLUMNS), strict=True)
    return sheet_of(torch.cat([part for row in rows if len(row[0]) == COLUMNS for part in row]), COLUMNS)


def _lines(values: dict[str, Any]) -> list[str]:
    found, phi, cycle = values["reconstruction"], values["phi"], values["cycle"]
    return [
        "## What comes back", "",
        "![reconstructions](reconstructions.png)", "",
        f"{found['images']:,} test images through encoder and generator: {found['psnr_median']:.1f} dB "
        f"median, {found['psnr_worst']:.1f} worst, SSIM {found['ssim']:.3f}. In pairs: the image above what "
        "came back.", "",
        "![interpolations](interpolations.png)", "",
        "From one test image (left) to another (right) along straight lines in w.", "",
        f"φ there and back on their codes: {phi['round_trip_fp32']:.1e} in fp32, "
        f"{phi['round_trip_fp64']:.1e} in fp64; largest |log-determinant| {phi['largest_log_det']:.1e}. "
        f"z = φ(E(x)) has mean square {phi['z_mean_square']:.2f}, its coordinates have spreads of "
        f"{phi['z_spread_least']:.2f} to {phi['z_spread_largest']:.2f}.", "",
        f"z → image → encoder → z: {100 * cycle['z_error']:.0f} % of |z| off in the median; the image comes "
        f"back at {cycle['image_psnr']:.1f} dB.", "",
    ]  # fmt: skip
