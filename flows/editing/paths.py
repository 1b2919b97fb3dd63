"""Interpolation between two codes, along a straight line or a great circle."""

import torch
from torch import Tensor


def line(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Linear interpolation (1 − share)·a + share·b: (steps, D) from (1, D), (1, D) and (steps, 1)."""
    return torch.lerp(a, b, share)


def sphere(a: Tensor, b: Tensor, share: Tensor) -> Tensor:
    """Interpolation on the great circle from a's direction to b's, with linear length: (steps, D).

    Codes of a standard normal prior lie near a sphere of radius √D, which the straight line leaves.
    """
    length_a, length_b = a.norm(), b.norm()
    angle = torch.arccos(((a / length_a) * (b / length_b)).sum().clamp(-1, 1))
    if angle < 1e-6:
        return line(a, b, share)
    direction = torch.sin((1 - share) * angle) * a / length_a + torch.sin(share * angle) * b / length_b
    return direction / torch.sin(angle) * torch.lerp(length_a, length_b, share)
