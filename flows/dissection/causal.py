"""What units cause: class pixels that go when they are switched off, and that come when they are put in."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows.dissection.instrument import Change, instrument, layers_of
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.once import prepared
from flows.semantics.base import Segmenter


def units_change(units: Sequence[int], channels: int, value: Tensor | float = 0.0) -> Change:
    """These units at every place set to `value`, a number or (C,)."""
    amount = torch.zeros(channels, 1, 1)
    amount[list(units)] = 1
    values = torch.as_tensor(value, dtype=torch.float32).expand(channels)
    return Change(amount, values[:, None, None])


@torch.no_grad()
def seen_through(
    model: LatentModel,
    codes: Codes,
    changes: Sequence[tuple[str, Change]],
    see: Callable[[Tensor], Tensor],
) -> Tensor:
    """What `see` says of images (batch, C, H, W) in [0, 1], drawn through these changes of layers."""
    found = []
    with instrument(model, codes.space) as probe, prepared():
        for layer, change in changes:
            probe.change(layer, change)
        for _, images in probe.batches(codes):
            found.append(see(images.clamp(0, 1).float()).cpu())
    return torch.cat(found)


def class_pixels(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    changes: Sequence[tuple[str, Change]] = (),
) -> Tensor:
    """Pixels of every class in each image, (n, classes), drawn through these changes."""
    return seen_through(model, codes, changes, lambda images: segmenter.segment(images).flatten(2).sum(2))


@dataclass(frozen=True)
class Ablation:
    """Shares of a class's pixels that are removed with so many units.

    Attributes:
        label: name of the class.
        layer: of the units.
        units: in their order.
        sizes: numbers of units switched off.
        removed: for each number, of the first units.
        random: for each number, of randomly chosen ones, mean of several draws.
    """

    label: str
    layer: str
    units: list[int]
    sizes: list[int]
    removed: list[float]
    random: list[float]


def ablate(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    label: str,
    units: Sequence[int],
    sizes: Sequence[int] = (1, 2, 5, 10, 20),
    before: Tensor | None = None,
    chance: dict[int, Tensor] | None = None,
) -> Ablation:
    """Switch units off, in their order, and count what is left of a class.

    Args:
        model: in eval mode.
        segmenter: of the classes.
        codes: Codes; those whose images lack the class count for nothing.
        layer: of the units.
        label: name of the class.
        units: best first.
        sizes: how many of them.
        before: `class_pixels` without changes, where it is known.
        chance: `by_random_units` of this layer and these sizes, where it is known.

    Raises:
        ValueError: no image has the class.
    """
    column = list(segmenter.classes).index(label)
    before = class_pixels(model, segmenter, codes) if before is None else before
    channels = layers_of(model, codes.space)[layer].channels
    has = torch.nonzero(before[:, column] > 0)[:, 0]
    if not len(has):
        raise UserError(f"none of {len(before)} images has a {label}: nothing can be removed")
    relevant = codes[has]
    tried = [size for size in sizes if size <= min(len(units), channels)]
    removed = []
    for size in tried:
        change = units_change(list(units[:size]), channels)
        after = class_pixels(model, segmenter, relevant, [(layer, change)])
        removed.append(1 - float(after[:, column].sum()) / float(before[:, column].sum()))
    chance = chance or by_random_units(model, segmenter, codes, layer, tried, before)
    return Ablation(label, layer, list(units), tried, removed, [float(chance[n][column]) for n in tried])


def by_random_units(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    sizes: Sequence[int],
    before: Tensor,
    draws: int = 3,
) -> dict[int, Tensor]:
    """Number of random units switched off to the share of every class's pixels removed, (classes,).

    Counted where the class was, as `ablate` does, in the mean over several draws.
    """
    channels = layers_of(model, codes.space)[layer].channels
    random, has = torch.Generator().manual_seed(0), before > 0
    total = before.double().sum(0).clamp(min=1)
    found = {}
    for size in sizes:
        left = torch.zeros_like(total)
        for _ in range(draws):
            change = units_change(torch.randperm(channels, generator=random)[:size].tolist(), channels)
            after = class_pixels(model, segmenter, codes, [(layer, change)])
            left += (after * has).double().sum(0) / draws
        found[size] = 1 - left / total
    return found


@torch.no_grad()
def class_means(model: LatentModel, segmenter: Segmenter, codes: Codes, layer: str, label: str) -> Tensor:
    """Mean activation of every unit at places of a class, (C,): what is put in to draw it."""
    column = list(segmenter.classes).index(label)
    total, weight = None, 0.0
    with instrument(model, codes.space) as probe, prepared():
        probe.retain(layer)
        for _, images in probe.batches(codes):
            images = images.clamp(0, 1).float()
            h = probe.kept[layer].float()
            share = interpolate(
                segmenter.segment(images)[:, column : column + 1].float(), h.shape[2:], mode="area"
            )
            part = (h * share).sum((0, 2, 3)).cpu()
            total = part if total is None else total + part
            weight += float(share.sum())
    if total is None or weight == 0:
        raise UserError(f"no image of {len(codes)} has a {label}")
    return total / weight


@torch.no_grad()
def average_causal_effect(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    label: str,
    units: Sequence[int],
    values: Tensor,
) -> float:
    """δ = E[s_c(inserted)] − E[s_c(ablated)], in shares of all pixels, units at all places.

    (arXiv 1811.10597, equation 3.)

    Args:
        model: in eval mode.
        segmenter: of the classes.
        codes: Codes of the images.
        layer: of the units.
        label: name of the class.
        units: which.
        values: (C,), put in; see `class_means`.
    """
    column = list(segmenter.classes).index(label)
    effect = []
    for value in (values, torch.zeros_like(values)):
        change = units_change(units, len(values), value)
        pixels = class_pixels(model, segmenter, codes, [(layer, change)])
        effect.append(float(pixels[:, column].double().mean()))
    area = model.image_shape[1] * model.image_shape[2]
    return (effect[0] - effect[1]) / area
