"""Affine maps of the channels at every pixel, which a chain may fold into one matrix product."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from flows.bijections.base import Bijection
from flows.core.numerics import full_precision, to_double


class ChannelAffines(NamedTuple):
    """Stack of n affine maps of channels, x ↦ weight x + offset.

    Attributes:
        weight: (n, C, C).
        offset: (n, C).
        log_abs_det: (n,), log|det weight| of one pixel.
    """

    weight: Tensor
    offset: Tensor
    log_abs_det: Tensor


class ChannelMap(Bijection):
    """Affine map of the channels at every pixel: z = W x + b; log|det| = H·W·log|det W|.

    Adjacent channel maps of a chain are computed as one (`execution.folding`), unless there is a hook between
    them.

    Attributes:
        channels: Number of channels C.
        dense: Whether W is a full matrix. A run of maps is folded only if one of them is dense; a scaling
            alone is cheaper without folding.
    """

    constant_log_det = True
    channels: int
    dense: ClassVar[bool]

    @classmethod
    @abstractmethod
    def stack(cls, maps: Sequence[Self]) -> ChannelAffines:
        """Compute W, b and log|det W| of several maps of the same size together."""


def invert(weight: Tensor) -> Tensor:
    """Invert (..., C, C) in double precision, whatever the dtype of `weight`."""
    with full_precision(weight):
        return torch.linalg.inv(to_double(weight))


def invert_affine(weight: Tensor, offset: Tensor) -> tuple[Tensor, Tensor]:
    """Compute W⁻¹ (n, C, C) and −W⁻¹b (n, C) of n affine maps in double precision."""
    inverse = invert(weight)
    with full_precision(weight):
        inverse_offset = -(inverse @ to_double(offset).unsqueeze(2)).squeeze(2)
    return inverse.to(weight), inverse_offset.to(weight)


def mix_channels(weight: Tensor, x: Tensor, offset: Tensor | None = None) -> Tensor:
    """Apply weight (C, C) to the channels of x (batch, C) or (batch, C, H, W), and add offset (C,).

    A matrix product is used instead of a convolution: on GPUs, torch computes convolutions in TF32 by
    default, which costs the inverse three digits; matrix products stay in fp32.
    """
    with full_precision(x):
        weight = weight.to(x)
        if x.dim() == 2:
            y = x @ weight.T
            return y if offset is None else y + offset.to(x.dtype)
        flat = x.reshape(*x.shape[:2], -1)
        if offset is None:
            return (weight @ flat).view(x.shape)
        mixing = weight.expand(len(x), -1, -1)
        return torch.baddbmm(offset.to(x.dtype).view(1, -1, 1), mixing, flat).view(x.shape)
