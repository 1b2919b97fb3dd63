"""How far an image is from what came back of it."""

import torch
from torch import Tensor


def psnr(first: Tensor, second: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of uint8 images (n, C, H, W): (n,), dB; infinite where they are equal."""
    error = (first.double() - second.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)
