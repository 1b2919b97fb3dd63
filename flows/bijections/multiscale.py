"""Multi-scale architecture (RealNVP §3.6): half of the channels is factored out after each level."""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import cast

import torch
from torch import Tensor, nn

from flows.bijections.base import Bijection, Example, Mapped, Shape
from flows.core.numerics import zero_log_det
from flows.errors import UserError

__all__ = ["Multiscale"]


class Multiscale(Bijection):
    """Multi-scale map from an image to one flat code (batch, D), ordered coarse to fine.

    Level i applies `levels[i]`. After every level but the last, the second half of the channels is factored
    out into the code, and the first half is passed to the next level. Glow's learned prior of the second half
    given the first is an affine coupling at the end of a level's chain, so each level's part of the code is
    whitened and the whole code has one standard prior.

    Args:
        levels: Bijections, fine to coarse, in the order in which they are applied to an image.
        shape: (C, H, W) of one input.

    Raises:
        UserError: A level but the last ends with an odd number of channels.
    """

    def __init__(self, levels: Sequence[Bijection], shape: Shape):
        super().__init__()
        self.levels = cast(Sequence[Bijection], nn.ModuleList(levels))
        self.shape = tuple(shape)
        self.parts: list[Shape] = []
        for i, level in enumerate(levels):
            channels, height, width = level.output_shape(shape)
            if i + 1 < len(levels):
                if channels % 2:
                    raise UserError(
                        f"level {i + 1} of {len(levels)} ends with {channels} channels, "
                        "which cannot be halved"
                    )
                channels //= 2
            shape = (channels, height, width)
            self.parts.append(shape)
        sizes = [torch.Size(part).numel() for part in reversed(self.parts)]
        ends = list(accumulate(sizes, initial=0))
        names = [f"level{i}" for i in range(len(self.levels), 0, -1)]
        self.slices = {name: slice(*bounds) for name, bounds in zip(names, pairwise(ends), strict=True)}
        """Slice of each level's part of the code, by name, coarsest first; `level1` is the finest."""
        shapes = [(part[0], part[1], part[2]) for part in reversed(self.parts)]
        self.maps = dict(zip(names, shapes, strict=True))
        """Shape (C, H, W) of each level's part of the code, by name."""

    def forward(self, x: Tensor, context: Tensor | None = None) -> Mapped:
        log_det, parts = zero_log_det(x), []
        for level in self.levels[:-1]:
            x, level_log_det = level(x, context)
            log_det = log_det + level_log_det
            x, factored_out = x.chunk(2, 1)
            parts.append(factored_out.flatten(1))
        x, level_log_det = self.levels[-1](x, context)
        parts.append(x.flatten(1))
        return torch.cat(parts[::-1], 1), log_det + level_log_det

    def inverse(self, z: Tensor, context: Tensor | None = None) -> Mapped:
        sizes = [part.stop - part.start for part in self.slices.values()]
        parts = [
            part.unflatten(1, shape)
            for part, shape in zip(z.split(sizes, 1), reversed(self.parts), strict=True)
        ]
        x, log_det = self.levels[-1].inverse(parts[0], context)
        for level, factored_out in zip(reversed(self.levels[:-1]), parts[1:], strict=True):
            x, level_log_det = level.inverse(torch.cat([x, factored_out], 1), context)
            log_det = log_det + level_log_det
        return x, log_det

    def output_shape(self, shape: Shape) -> Shape:
        if tuple(shape) != self.shape:
            raise UserError(f"expected an input of shape {self.shape}, got {tuple(shape)}")
        return (torch.Size(shape).numel(),)

    def input_shape(self, shape: Shape) -> Shape:
        return self.shape

    @classmethod
    def examples(cls) -> dict[str, Example]:
        from flows.bijections.chain import Chain
        from flows.bijections.linear import InvertibleConv1x1
        from flows.bijections.squeeze import Squeeze

        levels = [
            Chain(Squeeze(), InvertibleConv1x1(12)),
            Chain(Squeeze(), InvertibleConv1x1(24)),
        ]
        one = [Chain(Squeeze(), InvertibleConv1x1(4))]
        return {
            "two levels, odd channels": Example(cls(levels, (3, 4, 8)), (3, 4, 8)),
            "one level": Example(cls(one, (1, 2, 2)), (1, 2, 2)),
        }
