"""Distances between images and their reconstructions."""

import math

import torch
from torch import Tensor

from flows.core.numerics import to_double
from flows.errors import UserError, missing_extra

__all__ = ["psnr", "structural_similarity"]

WINDOW = 11
"""Side of the window of SSIM, in pixels."""


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of uint8 images (n, C, H, W): (n,), dB; infinite for equal images."""
    check_pairs(first, second)
    error = (to_double(first) - to_double(second)).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)


def check_pairs(first: Tensor, second: Tensor) -> None:
    """Raise UserError unless the images are as many and of one shape (n, C, H, W); torch would broadcast."""
    if first.shape != second.shape or first.dim() != 4:
        shapes = tuple(first.shape), tuple(second.shape)
        raise UserError(f"expected pairs of images (n, C, H, W), got {shapes[0]} and {shapes[1]}")


def structural_similarity(first: Tensor, second: Tensor) -> float:
    """Mean SSIM (Wang et al. 2004, Gaussian window of 11) of uint8 images (n, C, H, W), by torchmetrics.

    As published, and as in scikit-image, the mean is over the windows that lie within the image. NaN for
    images that are smaller than the window.

    Raises:
        DataMissing: torchmetrics is not installed.
    """
    try:
        from torchmetrics.functional.image import structural_similarity_index_measure as ssim
    except ImportError as error:
        raise missing_extra("structural similarity needs torchmetrics", "metrics", error) from error
    check_pairs(first, second)
    if min(first.shape[-2:]) < WINDOW:
        return math.nan
    a, b = first.float(), second.float()
    _, full = ssim(a, b, data_range=255.0, kernel_size=WINDOW, sigma=1.5, return_full_image=True)
    border = WINDOW // 2  # of windows that torchmetrics fills by reflection
    return float(full[..., border:-border, border:-border].mean())
