"""Channel maps and their folding: ActNorm and 1×1 convolution become one matrix product."""

from abc import abstractmethod
from collections.abc import Sequence
from itertools import groupby
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor

from flows.bijections.base import Bijection, Mapped, PulledBack
from flows.numerics import full_precision, to_double, zero_log_det


class Affine(NamedTuple):
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

    Adjacent channel maps of a chain are computed as one (`fold`), unless there is a hook between them.

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
    def stack(cls, maps: Sequence[Self]) -> Affine:
        """Compute W, b and log|det W| of several maps of the same size together."""


class Folded:
    """Run of channel maps as one, x ↦ weight x + offset; the `Folding` has its log-det."""

    def __init__(self, folding: "Folding", weight: Tensor, offset: Tensor, number: int):
        self.folding, self.weight, self.offset, self.number = folding, weight, offset, number

    def __call__(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, None]:
        return mix_channels(self.weight, x, self.offset), None

    def inverse(self, z: Tensor, context: Tensor | None = None) -> tuple[Tensor, None]:
        weight, offset = (value[self.number] for value in self.folding.inverted())
        return mix_channels(weight, z, offset), None

    def tensors(self) -> list[Tensor]:
        """Weight and offset, the tensors whose gradients are computed."""
        return [self.weight, self.offset]

    def pull_back(
        self, z: Tensor, context: Tensor | None, grad_z: Tensor, grad_log_det: Tensor
    ) -> PulledBack:
        """Compute x = W⁻¹(z − b); ∂x = Wᵀ∂z, ∂W = Σ ∂z xᵀ, ∂b = Σ ∂z, summed over batch and pixels."""
        x, _ = self.inverse(z)
        with full_precision(z):
            flat_grad = grad_z.flatten(2) if grad_z.dim() > 2 else grad_z.unsqueeze(2)
            grad_weight = torch.bmm(flat_grad, x.reshape(flat_grad.shape).transpose(1, 2)).sum(0)
        grad_x = mix_channels(self.weight.detach().T, grad_z)
        return PulledBack(x, grad_x, None, [grad_weight, flat_grad.sum((0, 2))])


class Folding:
    """Runs of channel maps of the same kinds and sizes; run i of n is computed as one affine map.

    Quantities that do not depend on the images are computed for all runs together: products, determinants and
    inverses of n small matrices take one call each instead of n.
    """

    def __init__(self, runs: Sequence[Sequence[ChannelMap]]):
        first, *others = [type(maps[0]).stack(maps) for maps in zip(*runs, strict=True)]
        weight, offset, log_abs_det = first
        with full_precision(weight):
            for following in others:
                offset = (following.weight @ offset.unsqueeze(2)).squeeze(2) + following.offset
                weight = following.weight @ weight
                log_abs_det = log_abs_det + following.log_abs_det
        self.affine = Affine(weight, offset, log_abs_det)
        self._inverted: tuple[Tensor, Tensor] | None = None

    def inverted(self) -> tuple[Tensor, Tensor]:
        """W⁻¹ (n, C, C) and −W⁻¹b (n, C), computed once, in double precision."""
        if self._inverted is None:
            self._inverted = invert_affine(self.affine.weight, self.affine.offset)
        return self._inverted

    def log_det(self, x: Tensor) -> Tensor:
        """Sum of log|det| over all runs for inputs like x (batch, ...), a scalar."""
        channels = self.affine.offset.shape[1]
        return x[0].numel() // channels * self.affine.log_abs_det.sum()

    def folded(self) -> list[Folded]:
        """Runs as `Folded` steps, in order."""
        pairs = zip(self.affine.weight.unbind(), self.affine.offset.unbind(), strict=True)
        return [Folded(self, weight, offset, i) for i, (weight, offset) in enumerate(pairs)]


Step = Bijection | Folded


def run_plainly(steps: Sequence[Step], x: Tensor, context: Tensor | None) -> Mapped:
    """Apply all steps in order."""
    total = zero_log_det(x)
    for step in steps:
        x, log_det = step(x, context)
        total = total if log_det is None else total + log_det
    return x, total


def run_backwards(steps: Sequence[Step], z: Tensor, context: Tensor | None) -> Mapped:
    """Apply the inverses of all steps, from the last to the first."""
    total = zero_log_det(z)
    for step in reversed(steps):
        z, log_det = step.inverse(z, context)
        total = total if log_det is None else total + log_det
    return z, total


def fold(steps: Sequence[Bijection]) -> tuple[list[Step], list[Folding]]:
    """Replace every foldable run of channel maps; returns the steps and the foldings of the replaced runs."""
    replaced: list[Any] = []
    waiting: dict[tuple[object, ...], list[int]] = {}
    for are_maps, group in groupby(steps, key=lambda step: isinstance(step, ChannelMap)):
        members: list[Any] = list(group)
        if not (are_maps and any(member.dense for member in members)):
            replaced += members
            continue
        kind = tuple((type(member), member.channels) for member in members)
        waiting.setdefault(kind, []).append(len(replaced))
        replaced.append(members)
    foldings = []
    for places in waiting.values():
        folding = Folding([replaced[place] for place in places])
        foldings.append(folding)
        for place, folded in zip(places, folding.folded(), strict=True):
            replaced[place] = folded
    return replaced, foldings


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
