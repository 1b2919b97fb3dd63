"""Units that a class needs, found by optimisation, and locations where they insert it (Bau et al. 2019)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows import images as pixels
from flows.core.numerics import frozen
from flows.core.once import prepared
from flows.display.progress import progress
from flows.dissection.agreement import Agreement
from flows.dissection.causal import check_units, seen_through
from flows.dissection.probe import Change, Probe, instrument, layer_of
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter, column_of_class

__all__ = ["Insertion", "insertion", "learn_units"]


def learn_units(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    label: str,
    values: Tensor,
    agreement: Tensor | None = None,
    steps: int = 60,
    batch: int = 16,
    lr: float = 0.3,
    penalty: float = 0.05,
    seed: int = 0,
) -> Tensor:
    """Learn how much of each unit a class needs: α* = argmin −δ(α) + λ·mean(α²).

    δ(α) is a difference of class probabilities (arXiv 1811.10597, equations 5 and 6). The first is that at a
    random patch of the layer, with units set to α·values + (1 − α)·h in the patch. The second is that where
    the class was, with units set to (1 − α)·h everywhere, as `ablate` counts it. In the paper, the penalty is
    a sum, and α is clamped to [0, 1]. Here the penalty is a mean, so that it does not depend on the width of
    the layer, and α is a sigmoid, whose gradient does not end at 0.

    Args:
        model: Model in eval mode.
        segmenter: Differentiable segmenter.
        codes: Codes, other than those that the units are evaluated on.
        layer: Layer of the units.
        label: Name of the class.
        values: (C,), inserted values; see `causal.class_means`.
        agreement: (C,), IoU of the units with the class. α starts between 0.05 and 0.5 in proportion to it;
            None starts all units at the same α.
        steps: Number of steps of Adam.
        batch: Number of codes per step.
        lr: Learning rate of Adam.
        penalty: Weight λ of the penalty.
        seed: Seed of the codes and patches of each step.

    Returns:
        α, (C,), in (0, 1).

    Raises:
        UserError: No image has the class.
    """
    column = column_of_class(segmenter, label)
    random = torch.Generator().manual_seed(seed)
    shape = layer_of(model, codes.space, layer)
    masks = seen_through(model, codes, [], lambda images: segmenter.segment(images)[:, [column]]).float()
    has = torch.nonzero(masks.flatten(1).any(1))[:, 0]
    if not len(has):
        raise UserError(
            f"none of the {len(codes)} images contains the class {label!r}: take more codes or another class"
        )
    weight = begin_at(agreement, shape.channels).to(model.device).requires_grad_()
    optimiser = torch.optim.Adam([weight], lr)
    with frozen(model), instrument(model, codes.space) as probe, prepared():
        for _ in progress(range(steps), f"units of {label}"):
            alpha = weight.sigmoid()
            rows = torch.randint(len(codes), (batch,), generator=random)
            patch = random_patches(batch, shape.size, random)
            inserted = Change(alpha[:, None, None] * patch.to(alpha), values.to(alpha)[:, None, None])
            where = interpolate(patch, masks.shape[2:], mode="nearest")
            gained = _probability(probe, segmenter, codes[rows], (layer, inserted), where, column)
            rows = has[torch.randint(len(has), (batch,), generator=random)]
            ablated = Change(alpha[:, None, None], torch.zeros_like(alpha)[:, None, None])
            remaining = _probability(probe, segmenter, codes[rows], (layer, ablated), masks[rows], column)
            loss = remaining - gained + penalty * alpha.square().mean()
            (weight.grad,) = torch.autograd.grad(loss, [weight])
            optimiser.step()
    return weight.detach().sigmoid().cpu()


def learned_order(
    model: LatentModel, segmenter: Segmenter, codes: Codes, found: Agreement, label: str, values: Tensor
) -> list[int]:
    """Units of a layer in order of how much a class needs them, most needed first; see `learn_units`."""
    alpha = learn_units(model, segmenter, codes, found.layer, label, values, found.of(label))
    order: list[int] = alpha.argsort(descending=True).tolist()
    return order


def begin_at(agreement: Tensor | None, channels: int) -> Tensor:
    """Logits (channels,) of the initial α."""
    if agreement is None or float(agreement.max()) <= 0:
        return torch.full((channels,), -1.0)
    return torch.logit(0.05 + 0.45 * agreement.float() / agreement.float().max())


def _probability(
    probe: Probe, segmenter: Segmenter, codes: Codes, change: tuple[str, Change], where: Tensor, column: int
) -> Tensor:
    """Mean probability of a class, decoded through a change, where `where` (batch, 1, H, W) is 1."""
    probe.undo()
    probe.change(*change)
    images = pixels.clamp_through(probe.decode(codes).float())
    probability = segmenter.probabilities(images)[:, column : column + 1]
    weight = where.to(probability)
    return (probability * weight).sum() / weight.sum()


def random_patches(n: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """Random rectangles of a quarter to half of each side, one per image: 0 and 1, (n, 1, h, w)."""
    patches = torch.zeros(n, 1, *size)
    for patch in patches:
        sides = []
        for side in size:
            extent = int(torch.randint(max(1, side // 4), max(1, side // 2) + 1, (), generator=random))
            start = int(torch.randint(0, side - extent + 1, (), generator=random))
            sides.append(slice(start, start + extent))
        patch[0, sides[0], sides[1]] = 1
    return patches


@dataclass(frozen=True, kw_only=True)
class Insertion:
    """Effect of inserting a class at each location.

    Attributes:
        label: Name of the class.
        layer: Layer of the units.
        units: Channels of the units.
        gains: (images, rows, columns), pixels of the class within the patch whose units are set, less those
            before, as a share of the patch.
        contexts: Class that was most frequent in the patch to mean gain and number of locations.
        images: uint8 (images, C, H, W), images without the insertion.
    """

    label: str
    layer: str
    units: list[int]
    gains: Tensor
    contexts: dict[str, tuple[float, int]]
    images: Tensor

    def as_dict(self) -> dict[str, Any]:
        """Fields as plain values, without gains and images."""
        contexts = {name: {"gain": gain, "places": n} for name, (gain, n) in self.contexts.items()}
        return {"label": self.label, "layer": self.layer, "units": self.units, "contexts": contexts}


@torch.no_grad()
def insertion(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    label: str,
    units: Sequence[int],
    values: Tensor,
    rows: int = 4,
) -> Insertion:
    """Set units at each location in turn and measure whether the class appears there.

    A door can be inserted into a wall but not into the sky: the effect of the same units depends on their
    surroundings.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes.
        codes: Codes of the images.
        layer: Layer of the units.
        label: Name of the class.
        units: Channels of the units.
        values: (C,), inserted values; see `causal.class_means`.
        rows: Number of locations per side; at most the side of the layer.
    """
    column = column_of_class(segmenter, label)
    shape = layer_of(model, codes.space, layer)
    rows = min(rows, *shape.size)
    before = seen_through(model, codes, [], lambda images: pixels.to_bytes(images, model.bins))
    masks = seen_through(model, codes, [], segmenter.segment).float()
    chosen = torch.zeros(shape.channels, 1, 1)
    chosen[check_units(units, shape.channels)] = 1
    gains = torch.zeros(len(before), rows, rows)
    gains_by_class: dict[str, list[Tensor]] = {name: [] for name in segmenter.classes}
    for y in range(rows):
        for x in range(rows):
            patch = torch.zeros(1, *shape.size)
            patch[0, _part(y, rows, shape.size[0]), _part(x, rows, shape.size[1])] = 1
            change = Change(chosen * patch, values[:, None, None])
            after = seen_through(model, codes, [(layer, change)], segmenter.segment)[:, column].float()
            # Patch in the image, whose side need not be a multiple of the layer's.
            inside = interpolate(patch[None], masks.shape[2:], mode="nearest")[0, 0] > 0
            gain = (after - masks[:, column])[:, inside].mean(1)
            gains[:, y, x] = gain
            previous = masks[:, :, inside].mean(2).argmax(1)
            for i, name in enumerate(segmenter.classes):
                gains_by_class[name].append(gain[previous == i])
    contexts = contexts_of(gains_by_class, label)
    return Insertion(
        label=label, layer=layer, units=list(units), gains=gains, contexts=contexts, images=before
    )


def contexts_of(gains: dict[str, list[Tensor]], label: str) -> dict[str, tuple[float, int]]:
    """Mean gain and number of locations of each class but `label`, largest gain first."""
    joined = {name: torch.cat(parts) for name, parts in gains.items() if name != label}
    contexts = {name: (float(each.double().mean()), len(each)) for name, each in joined.items() if len(each)}
    return dict(sorted(contexts.items(), key=lambda item: -item[1][0]))


def _part(i: int, of: int, side: int) -> slice:
    """Slice of the i-th of `of` equal parts of a side."""
    return slice(i * side // of, (i + 1) * side // of)
