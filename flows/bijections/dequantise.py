"""Dequantisation of bytes to points within their bins, the only step that is not a bijection.

For a density p on [0, 1]^D and noise u ~ q(u | image) within the bin, the probability of an 8-bit image is
bounded by log P(image) ≥ log p(x) − log q(x | image) (Theis et al. 2016; Ho et al. 2019, equation 12).
A dequantiser returns x and log q. The inverse is a floor, exact for every u.
"""

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection, Mapped
from flows.core.numerics import Keys, normal_rows, sum_per_example, uniform_rows
from flows.errors import UserError
from flows.images import bin_index, to_unit

__all__ = ["Dequantiser", "UniformDequantiser", "VariationalDequantiser"]


class Dequantiser(nn.Module, ABC):
    """Maps every byte to a random point within its bin.

    Args:
        bins: Number of bins on [0, 1], 2 to 256 (`flows.images`).
    """

    def __init__(self, bins: int = 256):
        super().__init__()
        if not 2 <= bins <= 256:
            raise UserError(f"bins: expected 2 to 256 grey levels, got {bins}")
        self.bins = bins

    @abstractmethod
    def forward(self, images: Tensor, seed: int | Tensor, keys: Keys, dtype: torch.dtype) -> Mapped:
        """Map uint8 images (batch, C, H, W) to (x, log_q): x floats in [0, 1], log_q (batch,) in nats.

        The noise of an image depends on `seed` and on the key of the image only.
        """

    def place(self, images: Tensor, u: Tensor) -> Tensor:
        """Compute x = (bin + u) / bins for u in [0, 1), kept inside the bin.

        In floating point, bin + u may round up to the next bin; x is limited to the largest number below the
        bin's upper edge.
        """
        index = bin_index(images, self.bins).to(u.dtype)
        edge = (index + 1) / self.bins
        return torch.minimum((index + u) / self.bins, torch.nextafter(edge, torch.zeros_like(edge)))


class UniformDequantiser(Dequantiser):
    """Dequantiser with u uniform on [0, 1): log q = D·log(bins)."""

    def forward(self, images: Tensor, seed: int | Tensor, keys: Keys, dtype: torch.dtype) -> Mapped:
        like = torch.empty(0, dtype=dtype, device=images.device)
        u = uniform_rows(seed, keys, images.shape[1:], like)
        log_q = u.new_full((len(u),), u[0].numel() * math.log(self.bins))
        return self.place(images, u), log_q


class VariationalDequantiser(Dequantiser):
    """Dequantiser with a learned q: u = flow(ε; image), ε ~ N(0, 1) (Flow++, Ho et al. 2019, section 3.1).

    Args:
        flow: Bijection from ℝ^(C,H,W) to (0, 1)^(C,H,W); its context is the image in [−½, ½].
        bins: Number of bins on [0, 1], 2 to 256 (`flows.images`).
    """

    def __init__(self, flow: Bijection, bins: int = 256):
        super().__init__(bins)
        self.flow = flow

    def forward(self, images: Tensor, seed: int | Tensor, keys: Keys, dtype: torch.dtype) -> Mapped:
        like = torch.empty(0, dtype=dtype, device=images.device)
        epsilon = normal_rows(seed, keys, images.shape[1:], like)
        log_normal = sum_per_example(-0.5 * (epsilon.square() + math.log(2 * math.pi)))
        u, log_det = self.flow(epsilon, to_unit(images, self.bins, dtype) - 0.5)
        log_q = log_normal - log_det + u[0].numel() * math.log(self.bins)
        return self.place(images, u), log_q
