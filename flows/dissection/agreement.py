"""Network dissection: the class of each unit (Bau et al. 2019, arXiv 1811.10597, section 3.1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from flows.core.once import prepared
from flows.core.statistics import FEWEST, check_enough
from flows.display.progress import progress
from flows.dissection.probe import instrument
from flows.dissection.tally import AgreementTally, Extremes, Quantiles, quantile_shares, upsampled
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter
from flows.semantics.segmenter import one_hot

__all__ = ["Agreement", "UnitRow", "best_by_class", "dissect"]

Scheme = Literal["information", "quantile"]
BATCH = 100
"""Number of codes that are decoded at a time."""
CUT_IOU, CUT_INFORMATION, CUT_AGREEMENT, CUT_SHARE = 0.05, 0.01, 0.8, 1e-3
"""Minima, as in the released code: IoU and information quality of an interpretable unit, share of pixels on
which unit and class agree at a threshold, share of all pixels of a class.
"""


@dataclass(frozen=True, kw_only=True)
class UnitRow:
    """A unit and a class.

    Attributes:
        layer: Name of the layer.
        unit: Channel.
        label: Name of the class.
        iou: Intersection over union of unit and class, over all images that no threshold was chosen on.
        information: Mutual information of unit and class relative to their joint entropy, on the same images.
        threshold: Activation above which the unit is active.
        share: Share of locations at which the unit is active.
        interpretable: Whether IoU and information exceed their thresholds.
    """

    layer: str
    unit: int
    label: str
    iou: float
    information: float
    threshold: float
    share: float
    interpretable: bool

    def as_dict(self) -> dict[str, Any]:
        """Columns by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Agreement of the units of a layer with classes, on images that no threshold was chosen on.

    Attributes:
        layer: Name of the layer.
        classes: Names of the C classes.
        iou, information: (units, C); IoU is 0 for classes of less than a thousandth of all pixels.
        thresholds, shares: (units, C), threshold of each pair, and the share of locations above it.
        released: Row of each unit by the released rule of GAN dissection; see `dissect`.
    """

    layer: str
    classes: tuple[str, ...]
    iou: Tensor
    information: Tensor
    thresholds: Tensor
    shares: Tensor
    released: tuple[UnitRow, ...]

    def rows(self) -> list[UnitRow]:
        """Class of each unit by the released rule of GAN dissection; see `dissect`."""
        return list(self.released)

    def rows_by_iou(self) -> list[UnitRow]:
        """Class of each unit with the highest IoU."""
        return [self.row(unit, label) for unit, label in enumerate(self.iou.argmax(1).tolist())]

    def row(self, unit: int, label: int) -> UnitRow:
        """Row of one unit with one class, by their indices."""
        value, quality = float(self.iou[unit, label]), float(self.information[unit, label])
        return UnitRow(
            layer=self.layer,
            unit=unit,
            label=self.classes[label],
            iou=value,
            information=quality,
            threshold=float(self.thresholds[unit, label]),
            share=float(self.shares[unit, label]),
            interpretable=is_interpretable(value, quality),
        )

    def of(self, label: str) -> Tensor:
        """IoU of each unit with a class, (units,). Raises UserError if there is no such class."""
        if label not in self.classes:
            raise UserError(f"there is no class {label!r}; expected one of {', '.join(self.classes)}")
        return self.iou[:, self.classes.index(label)]

    def order(self, label: str) -> list[int]:
        """Units by their IoU with a class, best first."""
        order: list[int] = self.of(label).argsort(descending=True).tolist()
        return order


def best_layer(found: Mapping[str, Agreement], label: str, units: int = 1) -> str | None:
    """Layer of the unit with the highest IoU with a class; None if no unit agrees with it.

    Args:
        found: Agreement by layer.
        label: Name of the class.
        units: Number of units that will be changed. Layers with less than twice as many are used only if no
            other layer agrees, because almost any choice of their units includes those of the class.
    """

    def key(each: Agreement) -> tuple[bool, float]:
        highest = float(each.of(label).max())
        return highest > 0 and len(each.iou) >= 2 * units, highest

    best = max(found.values(), key=key)
    return best.layer if key(best)[1] > 0 else None


def dissect(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    layers: Sequence[str],
    scheme: Scheme = "information",
    share: float = 0.01,
    masks: Tensor | None = None,
) -> dict[str, Agreement]:
    """Measure how the units of some layers agree with classes.

    Thresholds are chosen on half of the codes; the other half is counted. With scheme `information`, a unit
    has one threshold per class: of 100 quantiles of its upsampled activations, the one with the highest
    information quality. With `quantile`, it has a single threshold.

    The released code of GAN dissection leaves out thresholds of at most 0 and the quantile that all
    activations exceed, and gives a unit the class with the highest information quality on the first half
    (`Agreement.rows`). The IoU ranks the units of a class, but not the classes of a unit: large classes have
    larger ones. Tools that look for the units of a class take all thresholds and order units by IoU.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter of the classes.
        codes: 2n codes.
        layers: Names of layers; see `instrument.layers_of`.
        scheme: Choice of the thresholds.
        share: Share of locations at which a unit is active, for `quantile`.
        masks: uint8 (2n, H, W), true classes; None uses those that the segmenter predicts.

    Returns:
        Agreement by layer.

    Raises:
        UserError: There are fewer than ten codes for the thresholds or for the count.
    """
    half = len(codes) // 2
    parts = "images, half for the thresholds of units and half for their agreement"
    check_enough(parts, len(codes), 2 * FEWEST)
    first, second = (
        (codes[rows], None if masks is None else masks[rows]) for rows in (slice(half), slice(half, None))
    )
    classes = len(segmenter.classes)
    shares = quantile_shares() if scheme == "information" else torch.tensor([share])
    thresholds = thresholds_of(model, segmenter, first, layers, shares)
    tallies = {layer: AgreementTally(thresholds[layer], classes) for layer in layers}
    if scheme == "information":
        for layer, activations, ask in _seen(model, segmenter, *first, layers, "choice"):
            tallies[layer].add(activations, ask())
        chosen = {layer: best_thresholds(tally)[1] for layer, tally in tallies.items()}
        labels = {layer: released_labels(tally, shares) for layer, tally in tallies.items()}
        tallies = {layer: AgreementTally(thresholds[layer], classes) for layer in layers}
    else:
        chosen = {layer: torch.zeros(len(thresholds[layer]), classes, dtype=torch.long) for layer in layers}
        labels = {}
    for layer, activations, ask in _seen(model, segmenter, *second, layers, "agreement"):
        tallies[layer].add(activations, ask())
    names = segmenter.classes
    return {
        layer: agreement_of(layer, tally, chosen[layer], labels.get(layer), thresholds[layer], shares, names)
        for layer, tally in tallies.items()
    }


def thresholds_of(
    model: LatentModel,
    segmenter: Segmenter,
    given: tuple[Codes, Tensor | None],
    layers: Sequence[str],
    shares: Tensor,
) -> dict[str, Tensor]:
    """Thresholds (units, L) of each layer that shares (L,) of its upsampled activations exceed.

    Args:
        model: Model in eval mode.
        segmenter: Segmenter, which is not asked.
        given: Codes, and their true masks or None.
        layers: Names of layers.
        shares: (L,), shares of the activations above each threshold.
    """
    extremes = {layer: Extremes() for layer in layers}
    for layer, activations, _ in _seen(model, segmenter, *given, layers, "extremes"):
        extremes[layer].add(upsampled(activations, model.image_shape[1:]))
    quantiles = {layer: Quantiles(each) for layer, each in extremes.items()}
    for layer, activations, _ in _seen(model, segmenter, *given, layers, "thresholds"):
        quantiles[layer].add(upsampled(activations, model.image_shape[1:]))
    return {layer: each.at(shares) for layer, each in quantiles.items()}


def best_thresholds(tally: AgreementTally, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Highest information quality of each unit and class, and the index of its threshold: (C, classes) each.

    Only thresholds at which unit and class agree on more than `CUT_AGREEMENT` of the pixels are considered.

    Args:
        tally: Counts.
        allowed: bool (C, L), thresholds to consider; None considers all.
    """
    possible = tally.agreement() > CUT_AGREEMENT
    if allowed is not None:
        possible = possible & allowed[:, :, None]
    quality = tally.information_quality().where(possible, torch.zeros(()).double())
    highest, index = quality.max(1)
    return highest, index


def released_labels(tally: AgreementTally, shares: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Class of each unit by the released rule, index of its threshold, and whether there is one: (C,) each.

    Args:
        tally: Counts on the images that thresholds are chosen on.
        shares: (L,), share of all activations above each threshold.
    """
    quality, index = best_thresholds(tally, (tally.thresholds > 0) & (shares < 1))
    quality = quality.where(tally.present / tally.pixels >= CUT_SHARE, torch.zeros(()).double())
    highest, label = quality.max(1)
    return label, index.gather(1, label[:, None])[:, 0], highest > 0


def agreement_of(
    layer: str,
    tally: AgreementTally,
    chosen: Tensor,
    labels: tuple[Tensor, Tensor, Tensor] | None,
    thresholds: Tensor,
    shares: Tensor,
    classes: Sequence[str],
) -> Agreement:
    """Agreement at the chosen thresholds, int64 (units, classes).

    Args:
        layer: Name of the layer.
        tally: Counts on the images that no threshold was chosen on.
        chosen: Index of the threshold of each unit and class.
        labels: Classes by the released rule; None takes those of the highest IoU, for one threshold per unit.
        thresholds: (units, L).
        shares: (L,), share of all activations above each threshold.
        classes: Names of the classes.
    """
    index = chosen[:, None, :]
    zero = torch.zeros((), dtype=torch.float64)
    frequent = tally.present / tally.pixels >= CUT_SHARE
    iou = tally.iou().where(frequent, zero)
    information = tally.information_quality()
    own = iou.gather(1, index)[:, 0]
    if labels is None:
        label = own.argmax(1)
        labels = label, torch.zeros_like(label), torch.ones_like(label, dtype=torch.bool)
    label, level, has = labels
    units = torch.arange(len(label))
    figures = iou[units, level, label], information[units, level, label], thresholds[units, level]
    return Agreement(
        layer=layer,
        classes=tuple(classes),
        iou=own,
        information=information.gather(1, index)[:, 0],
        thresholds=thresholds.gather(1, chosen),
        shares=shares[chosen],
        released=released_rows(
            layer, [classes[each] for each in label.tolist()], has, *figures, shares[level]
        ),
    )


def released_rows(layer: str, labels: Sequence[str], has: Tensor, *figures: Tensor) -> tuple[UnitRow, ...]:
    """Rows of the units of a layer by the released rule.

    Args:
        layer: Name of the layer.
        labels: Class of each unit.
        has: bool (C,), whether the unit has a class.
        figures: IoU, information quality, threshold, and share of the locations above it, (C,) each.
    """
    columns = zip(labels, has.tolist(), *(each.tolist() for each in figures), strict=True)
    return tuple(
        UnitRow(
            layer=layer,
            unit=unit,
            label=label,
            iou=iou,
            information=information,
            threshold=threshold,
            share=share,
            interpretable=known and is_interpretable(iou, information),
        )
        for unit, (label, known, iou, information, threshold, share) in enumerate(columns)
    )


def is_interpretable(iou: float, information: float) -> bool:
    """Whether IoU and information quality exceed their thresholds."""
    return iou > CUT_IOU and information > CUT_INFORMATION


@torch.no_grad()
def _seen(
    model: LatentModel,
    segmenter: Segmenter,
    codes: Codes,
    known: Tensor | None,
    layers: Sequence[str],
    title: str,
) -> Iterator[tuple[str, Tensor, Callable[[], Tensor]]]:
    """Layer, activations, and a function that returns the masks, for each batch and layer."""
    with instrument(model, codes.space) as probe, prepared():
        probe.retain(*layers)
        total = -(-len(codes) // BATCH)
        for rows, images in progress(probe.batches(codes, BATCH), title, total):
            part = None if known is None else known[rows]
            masks: list[Tensor] = []

            def ask(
                images: Tensor = images, part: Tensor | None = part, masks: list[Tensor] = masks
            ) -> Tensor:
                if not masks:
                    masks.append(masks_of(segmenter, images, part))
                return masks[0]

            for layer in layers:
                yield layer, probe.kept[layer], ask


def masks_of(segmenter: Segmenter, images: Tensor, known: Tensor | None) -> Tensor:
    """Class masks, bool (batch, classes, H, W): the true ones if known, else those of the segmenter."""
    if known is not None:
        return one_hot(known, len(segmenter.classes))
    return segmenter.segment(images.clamp(0, 1).float())


def best_by_class(found: Mapping[str, Agreement]) -> dict[str, UnitRow]:
    """Unit with the highest IoU for each class that has one above 0; highest IoU first."""
    rows = [
        each.row(int(each.iou[:, label].argmax()), label)
        for each in found.values()
        for label in range(len(each.classes))
    ]
    best: dict[str, UnitRow] = {}
    for row in sorted(rows, key=lambda row: -row.iou):
        if row.iou > 0:
            best.setdefault(row.label, row)
    return best


def counts(rows: Sequence[UnitRow]) -> dict[str, tuple[int, int, int]]:
    """Number of units, of interpretable units, and of classes of the latter, by layer."""
    numbers = {}
    for layer in dict.fromkeys(row.layer for row in rows):
        units = [row for row in rows if row.layer == layer]
        interpretable = [row for row in units if row.interpretable]
        numbers[layer] = (len(units), len(interpretable), len({row.label for row in interpretable}))
    return numbers
