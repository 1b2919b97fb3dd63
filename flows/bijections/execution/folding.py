"""Folding of channel maps: ActNorm and 1×1 convolution become one matrix product."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from flows.bijections.base import Bijection, PulledBack
from flows.bijections.channels import ChannelAffines, ChannelMap, invert_affine, mix_channels
from flows.core.numerics import full_precision


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
        self.affine = ChannelAffines(weight, offset, log_abs_det)
        self._inverted: tuple[Tensor, Tensor] | None = None

    def inverted(self) -> tuple[Tensor, Tensor]:
        """W⁻¹ (n, C, C) and −W⁻¹b (n, C), computed once, in double precision."""
        if self._inverted is None:
            self._inverted = invert_affine(self.affine.weight, self.affine.offset)
        return self._inverted

    def log_det(self, x: Tensor) -> Tensor:
        """Sum of log|det| over all runs for inputs like x (batch, ...), a scalar."""
        channels = self.affine.offset.shape[1]
        return x.shape[1:].numel() // channels * self.affine.log_abs_det.sum()

    def folded(self) -> list[Folded]:
        """Runs as `Folded` steps, in order."""
        pairs = zip(self.affine.weight.unbind(), self.affine.offset.unbind(), strict=True)
        return [Folded(self, weight, offset, i) for i, (weight, offset) in enumerate(pairs)]


Step = Bijection | Folded


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
