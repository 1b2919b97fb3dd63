"""Which units a class needs, learned; and where they can put it (Bau et al. 2019, arXiv 1811.10597)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate
from tqdm import tqdm

from flows import images as pixels
from flows.dissection.causal import seen_through
from flows.dissection.dissect import Agreement
from flows.dissection.instrument import Change, Probe, instrument, layers_of
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.numerics import frozen
from flows.once import prepared
from flows.semantics.base import Segmenter


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
    """How much of every unit a class needs: α* = argmin −δ(α) + λ·mean(α²)  (equations 5 and 6).

    δ(α) is the class's probability at a random patch of the layer at which units are set to
    α·values + (1 − α)·h, less that where the class was once they are (1 − α)·h everywhere, as `ablate` counts
    it. In the paper the penalty is a sum, and α is held in [0, 1] by clamping; here it is a mean, lest it
    depend on the layer's width, and α a sigmoid, whose gradient does not end at 0.

    Args:
        model: in eval mode.
        segmenter: differentiable.
        codes: Codes, none that the units will be evaluated on.
        layer: of the units.
        label: name of the class.
        values: (C,), put in; see `causal.class_means`.
        agreement: (C,), IoU with the class: α begins between 0.05 and 0.5 in proportion; None begins alike.
        steps: of Adam.
        batch: codes for a step.
        lr: its learning rate.
        penalty: λ.
        seed: of codes and patches.

    Returns:
        α, (C,), in (0, 1).

    Raises:
        ValueError: no image has the class.
    """
    column = list(segmenter.classes).index(label)
    random = torch.Generator().manual_seed(seed)
    unit = layers_of(model, codes.space)[layer]
    there = seen_through(model, codes, [], lambda images: segmenter.segment(images)[:, [column]]).float()
    has = torch.nonzero(there.flatten(1).any(1))[:, 0]
    if not len(has):
        raise UserError(f"no image of {len(codes)} has a {label}")
    weight = begin_at(agreement, unit.channels).to(model.device).requires_grad_()
    optimiser = torch.optim.Adam([weight], lr)
    with frozen(model), instrument(model, codes.space) as probe, prepared():
        for _ in tqdm(range(steps), desc=f"units of {label}", leave=False):
            alpha = weight.sigmoid()
            anywhere = torch.randint(len(codes), (batch,), generator=random)
            patch = random_patches(batch, unit.size, random)
            put_in = Change(alpha[:, None, None] * patch.to(alpha), values.to(alpha)[:, None, None])
            where = interpolate(patch, there.shape[2:], mode="nearest")
            gained = _probability(probe, segmenter, codes[anywhere], (layer, put_in), where, column)
            some = has[torch.randint(len(has), (batch,), generator=random)]
            off = Change(alpha[:, None, None], torch.zeros_like(alpha)[:, None, None])
            left = _probability(probe, segmenter, codes[some], (layer, off), there[some], column)
            loss = left - gained + penalty * alpha.square().mean()
            (weight.grad,) = torch.autograd.grad(loss, [weight])
            optimiser.step()
    return weight.detach().sigmoid().cpu()


def learned_order(
    model: LatentModel, segmenter: Segmenter, codes: Codes, found: Agreement, label: str, values: Tensor
) -> list[int]:
    """All units of a layer, those first that a class needs most; see `learn_units`."""
    alpha = learn_units(model, segmenter, codes, found.layer, label, values, found.of(label))
    order: list[int] = alpha.argsort(descending=True).tolist()
    return order


def begin_at(agreement: Tensor | None, channels: int) -> Tensor:
    """Logits (channels,) of where α begins."""
    if agreement is None or float(agreement.max()) <= 0:
        return torch.full((channels,), -1.0)
    return torch.logit(0.05 + 0.45 * agreement.float() / agreement.float().max())


def _probability(
    probe: Probe, segmenter: Segmenter, codes: Codes, change: tuple[str, Change], where: Tensor, column: int
) -> Tensor:
    """Mean probability of a class where `where` (batch, 1, H, W) is 1, decoded through a change."""
    probe.undo()
    probe.change(*change)
    images = pixels.clamp_through(probe.decode(codes).float())
    probability = segmenter.probabilities(images)[:, column : column + 1]
    weight = where.to(probability)
    return (probability * weight).sum() / weight.sum()


def random_patches(n: int, size: tuple[int, int], random: torch.Generator) -> Tensor:
    """Rectangles of a quarter to a half of each side, one for each of n images: 0 and 1, (n, 1, h, w)."""
    patches = torch.zeros(n, 1, *size)
    for patch in patches:
        sides = []
        for side in size:
            extent = int(torch.randint(max(1, side // 4), max(1, side // 2) + 1, (), generator=random))
            start = int(torch.randint(0, side - extent + 1, (), generator=random))
            sides.append(slice(start, start + extent))
        patch[0, sides[0], sides[1]] = 1
    return patches


@dataclass(frozen=True)
class Insertion:
    """Where units can put a class.

    Attributes:
        label: name of the class.
        layer: of the units.
        units: which.
        gains: (images, rows, columns), pixels of the class that come where the units were set, less those
            that were there, as a share of the patch's pixels.
        contexts: class that stood there, to mean gain and number of places.
        images: uint8 (images, C, H, W), untouched.
    """

    label: str
    layer: str
    units: list[int]
    gains: Tensor
    contexts: dict[str, tuple[float, int]]
    images: Tensor

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        told = {name: {"gain": gain, "places": n} for name, (gain, n) in self.contexts.items()}
        return {"label": self.label, "layer": self.layer, "units": self.units, "contexts": told}


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
    """Set units at every place in turn, and see whether the class appears there.

    A door can be put into a wall and not into the sky: what a generator makes of the same units depends on
    what is around them.

    Args:
        model: in eval mode.
        segmenter: of the classes.
        codes: Codes of the images.
        layer: of the units.
        label: name of the class.
        units: which.
        values: (C,), put in; see `causal.class_means`.
        rows: places to a side; at most those of the layer.
    """
    column = list(segmenter.classes).index(label)
    unit = layers_of(model, codes.space)[layer]
    rows = min(rows, *unit.size)
    before = seen_through(model, codes, [], lambda images: pixels.to_bytes(images, model.bins))
    masks = seen_through(model, codes, [], segmenter.segment).float()
    chosen = torch.zeros(unit.channels, 1, 1)
    chosen[list(units)] = 1
    gains = torch.zeros(len(before), rows, rows)
    counted: dict[str, list[Tensor]] = {name: [] for name in segmenter.classes}
    for y in range(rows):
        for x in range(rows):
            patch = torch.zeros(1, *unit.size)
            patch[0, _part(y, rows, unit.size[0]), _part(x, rows, unit.size[1])] = 1
            change = Change(chosen * patch, values[:, None, None])
            after = seen_through(model, codes, [(layer, change)], segmenter.segment)[:, column].float()
            # Where the patch lies in the picture, whose side the layer's need not divide.
            there = interpolate(patch[None], masks.shape[2:], mode="nearest")[0, 0] > 0
            gain = (after - masks[:, column])[:, there].mean(1)
            gains[:, y, x] = gain
            stood = masks[:, :, there].mean(2).argmax(1)
            for i, name in enumerate(segmenter.classes):
                counted[name].append(gain[stood == i])
    joined = {name: torch.cat(parts) for name, parts in counted.items()}
    contexts = {
        name: (float(each.double().mean()), len(each))
        for name, each in joined.items()
        if len(each) and name != label
    }
    ordered = dict(sorted(contexts.items(), key=lambda item: -item[1][0]))
    return Insertion(label, layer, list(units), gains, ordered, before)


def _part(i: int, of: int, side: int) -> slice:
    """The i-th of so many parts of a side."""
    return slice(i * side // of, (i + 1) * side // of)
