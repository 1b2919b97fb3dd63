"""Causal effect of units: class pixels that disappear under ablation and appear under insertion."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from flows.core.once import prepared
from flows.dissection.probe import Change, instrument, layer_of
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter, column_of_class

__all__ = ["Ablation", "ablate", "average_causal_effect", "class_means"]


def units_change(units: Sequence[int], channels: int, value: Tensor | float = 0.0) -> Change:
    """Change that sets units to `value`, a number or (C,), at every location.

    Raises:
        UserError: A unit is none of the layer's channels.
    """
    amount = torch.zeros(channels, 1, 1)
    amount[check_units(units, channels)] = 1
    values = torch.as_tensor(value, dtype=torch.float32).expand(channels)
    return Change(amount, values[:, None, None])


def check_units(units: Sequence[int], channels: int) -> list[int]:
    """Return the units as a list; raise UserError for one that is none of the layer's channels."""
    for unit in units:
        if not 0 <= unit < channels:
            raise UserError(f"units: expected channels of the layer, 0 … {channels - 1}, got {unit}")
    return list(units)


@torch.no_grad()
def seen_through(
    model: LatentModel,
    codes: Codes,
    changes: Sequence[tuple[str, Change]],
    see: Callable[[Tensor], Tensor],
) -> Tensor:
    """Results of `see` for images (batch, C, H, W) in [0, 1], decoded through changes of layers."""
    results = []
    with instrument(model, codes.space) as probe, prepared():
        for layer, change in changes:
            probe.change(layer, change)
        for _, images in probe.batches(codes):
            results.append(see(images.clamp(0, 1).float()).cpu())
    return torch.cat(results)


def class_pixels(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    changes: Sequence[tuple[str, Change]] = (),
) -> Tensor:
    """Number of pixels of each class in each image, (n, classes), decoded through changes of layers."""
    return seen_through(model, codes, changes, lambda images: segmenter.segment(images).flatten(2).sum(2))


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """Shares of a class's pixels that are removed by ablating units.

    Attributes:
        label: Name of the class.
        layer: Layer of the units.
        units: Channels of the units, in the order of their ablation.
        sizes: Numbers of ablated units.
        removed: Share of pixels removed by the first units, for each number.
        random: Share of pixels removed by random units, for each number; mean of several draws.
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
    """Ablate units in their order and measure the share of a class's pixels that is removed.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes.
        codes: Codes; those whose images lack the class are ignored.
        layer: Layer of the units.
        label: Name of the class.
        units: Channels of the units, best first.
        sizes: Numbers of ablated units.
        before: `class_pixels` without changes; None computes them.
        chance: `by_random_units` of this layer and these sizes; None computes it.

    Raises:
        UserError: No image has the class.
    """
    column = column_of_class(segmenter, label)
    before = class_pixels(model, segmenter, codes) if before is None else before
    channels = layer_of(model, codes.space, layer).channels
    has = torch.nonzero(before[:, column] > 0)[:, 0]
    if not len(has):
        raise UserError(
            f"none of the {len(before)} images contains the class {label!r}: take more codes or another class"
        )
    relevant = codes[has]
    used = [size for size in sizes if size <= min(len(units), channels)]
    removed = []
    for size in used:
        change = units_change(list(units[:size]), channels)
        after = class_pixels(model, segmenter, relevant, [(layer, change)])
        removed.append(1 - float(after[:, column].sum()) / float(before[:, column].sum()))
    chance = chance or by_random_units(model, segmenter, codes, layer, used, before)
    return Ablation(
        label=label,
        layer=layer,
        units=list(units),
        sizes=used,
        removed=removed,
        random=[float(chance[n][column]) for n in used],
    )


def by_random_units(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layer: str,
    sizes: Sequence[int],
    before: Tensor,
    repeats: int = 3,
) -> dict[int, Tensor]:
    """Share of the pixels of each class, (classes,), that random units remove, by the number of units.

    Pixels are counted in images that have the class, as by `ablate`; the mean is over several draws.
    """
    channels = layer_of(model, codes.space, layer).channels
    random, has = torch.Generator().manual_seed(0), before > 0
    total = before.double().sum(0).clamp(min=1)
    removed = {}
    for size in sizes:
        left = torch.zeros_like(total)
        for _ in range(repeats):
            change = units_change(torch.randperm(channels, generator=random)[:size].tolist(), channels)
            after = class_pixels(model, segmenter, codes, [(layer, change)])
            left += (after * has).double().sum(0) / repeats
        removed[size] = 1 - left / total
    return removed


@torch.no_grad()
def class_means(model: LatentModel, segmenter: Segmenter, codes: Codes, layer: str, label: str) -> Tensor:
    """Mean activation of each unit at locations of a class, (C,): the values that insertion sets.

    Raises:
        UserError: No image has the class.
    """
    column = column_of_class(segmenter, label)
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
        raise UserError(
            f"none of the {len(codes)} images contains the class {label!r}: take more codes or another class"
        )
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
    """Average causal effect δ = E[s_c(inserted)] − E[s_c(ablated)] of units, as a share of all pixels.

    Units are set at all locations (arXiv 1811.10597, equation 3).

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes.
        codes: Codes of the images.
        layer: Layer of the units.
        label: Name of the class.
        units: Channels of the units.
        values: (C,), inserted values; see `class_means`.
    """
    column = column_of_class(segmenter, label)
    effect = []
    for value in (values, torch.zeros_like(values)):
        change = units_change(units, len(values), value)
        pixels = class_pixels(model, segmenter, codes, [(layer, change)])
        effect.append(float(pixels[:, column].double().mean()))
    area = model.image_shape[1] * model.image_shape[2]
    return (effect[0] - effect[1]) / area
