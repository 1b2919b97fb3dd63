"""Counts of active units and of classes over a whole data set; ratios are not averaged over images."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows.core.numerics import to_double
from flows.errors import UserError

QUANTILES = 100
"""Number of quantiles that are tried as thresholds: 1e-3 … 1 of all activations, at equal log steps."""
BINS = 16_384
"""Number of bins, between the extremes of a unit, in which its activations are counted for quantiles."""


def upsampled(activations: Tensor, size: Sequence[int]) -> Tensor:
    """Activations (batch, C, h, w) at the size (height, width) of masks, by bilinear interpolation."""
    return interpolate(activations.float(), tuple(size), mode="bilinear", align_corners=False)


class Extremes:
    """Lowest and highest activation of each unit in a stream, (C,) each."""

    low: Tensor | None = None
    high: Tensor | None = None

    def add(self, activations: Tensor) -> None:
        """Add activations (batch, C, height, width)."""
        low, high = (
            extreme(activations.detach().float(), (0, 2, 3)).cpu() for extreme in (torch.amin, torch.amax)
        )
        self.low = low if self.low is None else torch.minimum(self.low, low)
        self.high = high if self.high is None else torch.maximum(self.high, high)


class Quantiles:
    """Quantiles of each unit's activations in a stream, by counting in `BINS` bins of equal width.

    A quantile is the lower edge of its bin: it is at most a bin too low, and exactly the lowest activation if
    many activations are equal to that, as behind a ReLU.

    Args:
        extremes: Extremes of the same stream.
    """

    def __init__(self, extremes: Extremes):
        if extremes.low is None or extremes.high is None:
            raise UserError("thresholds need activations of at least one image, got none")
        self.low = extremes.low.double()
        self.width = (extremes.high.double() - self.low) / BINS
        self.counts = torch.zeros(len(self.low), BINS, dtype=torch.int64)

    def add(self, activations: Tensor) -> None:
        """Add activations (batch, C, height, width)."""
        columns = activations.detach().float().cpu().permute(1, 0, 2, 3).flatten(1)
        for unit, values in enumerate(columns):
            width = self.width[unit] if self.width[unit] > 0 else 1.0
            bins = ((values.double() - self.low[unit]) / width).long().clamp(0, BINS - 1)
            self.counts[unit] += torch.bincount(bins, minlength=BINS)

    def at(self, shares: Tensor) -> Tensor:
        """Thresholds (C, number of shares) that these shares of all activations exceed."""
        total = int(self.counts[0].sum())
        # The k-th highest activation lies in the first bin, from the top, up to which at least k are counted.
        from_top = self.counts.flip(1).cumsum(1)
        rank = (shares.double() * (total - 1)).round().long() + 1
        bins = BINS - 1 - torch.searchsorted(from_top, rank.expand(len(from_top), -1).contiguous())
        return (self.low[:, None] + self.width[:, None] * bins.clamp(min=0)).float()


class AgreementTally:
    """Joint counts, over all pixels of a stream, of units above a threshold and of classes.

    Args:
        thresholds: (C,), or (C, L) for several per unit.
        classes: Number of classes.
    """

    def __init__(self, thresholds: Tensor, classes: int):
        self.thresholds = thresholds[:, None] if thresholds.dim() == 1 else thresholds
        units, count = self.thresholds.shape
        self.both = torch.zeros(units, count, classes, dtype=torch.float64)
        self.active = torch.zeros(units, count, dtype=torch.float64)
        self.present = torch.zeros(classes, dtype=torch.float64)
        self.pixels = 0

    def add(self, activations: Tensor, masks: Tensor) -> None:
        """Add activations (batch, C, h, w) and masks, bool (batch, classes, H, W).

        Activations are resized to the masks by bilinear interpolation, as in the paper.
        """
        flat = upsampled(activations, masks.shape[2:]).permute(1, 0, 2, 3).flatten(1).cpu()
        present = masks.permute(0, 2, 3, 1).flatten(0, 2).cpu()
        self.pixels += len(present)
        self.present += to_double(present.sum(0))
        # Pairs of a pixel and one of its classes: they are fast to count, and a pixel may have several.
        pixel, label = present.nonzero(as_tuple=True)
        classes, count = present.shape[1], self.thresholds.shape[1]
        for unit, values in enumerate(flat.contiguous()):
            ordered, order = self.thresholds[unit].sort()
            # Number of sorted thresholds below each activation, counted in bins that are summed from the top.
            above = torch.searchsorted(ordered, values)
            pairs = torch.bincount(above[pixel] * classes + label, minlength=(count + 1) * classes)
            sizes = torch.bincount(above, minlength=count + 1).double()
            self.both[unit, order] += _from_the_top(pairs.view(-1, classes).double())
            self.active[unit, order] += _from_the_top(sizes)

    def iou(self) -> Tensor:
        """Intersection over union of unit and class by threshold, (C, L, classes); 0 if both are empty."""
        union = self.active[:, :, None] + self.present - self.both
        return self.both / union.clamp(min=1)

    def information_quality(self) -> Tensor:
        """Mutual information of unit and class relative to their joint entropy, (C, L, classes)."""
        n = float(self.pixels)
        both = self.both / n
        active, present = self.active[:, :, None] / n, self.present / n
        joint = torch.stack([both, active - both, present - both, 1 - active - present + both])
        product = torch.stack(
            [active * present, active * (1 - present), (1 - active) * present, (1 - active) * (1 - present)]
        )
        joint = joint.clamp(min=0)
        entropy = -torch.special.xlogy(joint, joint).sum(0)
        information = (torch.special.xlogy(joint, joint) - torch.special.xlogy(joint, product)).sum(0)
        return torch.where(entropy > 0, information / entropy.clamp(min=1e-12), torch.zeros(()).double())

    def agreement(self) -> Tensor:
        """Share of pixels on which unit and class agree, (C, L, classes)."""
        return 1 - (self.active[:, :, None] + self.present - 2 * self.both) / self.pixels


def _from_the_top(bins: Tensor) -> Tensor:
    """Counts above each of L thresholds, from counts in bins (L + 1, …)."""
    return bins.flip(0).cumsum(0).flip(0)[1:]


def quantile_shares() -> Tensor:
    """Shares of activations above the thresholds that are tried, (QUANTILES,), in descending order."""
    return torch.logspace(0, -3, QUANTILES)
