"""Network dissection: which class each unit agrees with (Bau et al. 2019, arXiv 1811.10597, section 3.1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from flows.dissection.instrument import instrument
from flows.dissection.tally import AgreementTally, Quantiles, quantile_shares
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.once import prepared
from flows.semantics.base import Segmenter
from flows.semantics.segmenter import one_hot

Scheme = Literal["information", "quantile"]
BATCH = 100
CUT_IOU, CUT_INFORMATION, CUT_AGREEMENT, CUT_SHARE = 0.05, 0.01, 0.8, 1e-3
"""What an interpretable unit has to pass, as in the released code."""


@dataclass(frozen=True)
class UnitRow:
    """A unit and a class that it agrees with: its best, or the class whose best it is.

    Attributes:
        layer: name.
        unit: channel.
        label: name of the class.
        iou: intersection over union of unit and class, over all images that no threshold was chosen on.
        information: their mutual information relative to their joint entropy, on the same images.
        threshold: above which the unit is active.
        level: share of places at which it is.
        interpretable: whether it passes the cuts.
    """

    layer: str
    unit: int
    label: str
    iou: float
    information: float
    threshold: float
    level: float
    interpretable: bool

    def as_dict(self) -> dict[str, Any]:
        """Columns by name."""
        return asdict(self)


@dataclass(frozen=True)
class Agreement:
    """How units of a layer agree with classes, on images that no threshold was chosen on.

    Attributes:
        layer: name.
        classes: C names.
        iou, information: (units, C); IoU is 0 for classes of less than a thousandth of all pixels.
        thresholds, levels: (units, C), chosen for the pair, and the share of places above it.
    """

    layer: str
    classes: tuple[str, ...]
    iou: Tensor
    information: Tensor
    thresholds: Tensor
    levels: Tensor

    def rows(self) -> list[UnitRow]:
        """The best class of every unit."""
        return [self.row(unit, label) for unit, label in enumerate(self.iou.argmax(1).tolist())]

    def row(self, unit: int, label: int) -> UnitRow:
        """One unit with one class, by their numbers."""
        value, quality = float(self.iou[unit, label]), float(self.information[unit, label])
        return UnitRow(
            self.layer, unit, self.classes[label], value, quality,
            float(self.thresholds[unit, label]), float(self.levels[unit, label]),
            value > CUT_IOU and quality > CUT_INFORMATION,
        )  # fmt: skip

    def of(self, label: str) -> Tensor:
        """Every unit's IoU with a class, (units,)."""
        return self.iou[:, self.classes.index(label)]

    def order(self, label: str) -> list[int]:
        """Units by their IoU with a class, the best first."""
        order: list[int] = self.of(label).argsort(descending=True).tolist()
        return order


def best_layer(found: Mapping[str, Agreement], label: str, units: int = 1) -> str | None:
    """The layer in which a unit agrees best with a class; None where none agrees at all.

    Args:
        found: agreement by layer.
        label: name of the class.
        units: how many will be changed; layers of less than twice as many come after all others, for
            almost any units of them are the class's.
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
    level: float = 0.01,
    masks: Tensor | None = None,
) -> dict[str, Agreement]:
    """How the units of some layers agree with classes.

    Half of the codes choose the thresholds, the other half is counted. By `information` a unit has a
    threshold for each class, of 100 quantiles the one with most information quality; by `quantile` one for
    all.

    Args:
        model: in eval mode.
        segmenter: of the classes.
        codes: 2n codes.
        layers: names; see `instrument.layers_of`.
        scheme: how thresholds are chosen.
        level: Share of places at which a unit is active, for `quantile`.
        masks: uint8 (2n, H, W), true classes; None takes those that the segmenter predicts.

    Returns:
        Agreement by layer.
    """
    half = len(codes) // 2
    first, second = (
        (codes[rows], None if masks is None else masks[rows]) for rows in (slice(half), slice(half, None))
    )
    quantiles = {layer: Quantiles() for layer in layers}
    for layer, activations, _ in _seen(model, segmenter, *first, layers, "thresholds"):
        quantiles[layer].add(activations)
    classes = len(segmenter.classes)
    shares = quantile_shares() if scheme == "information" else torch.tensor([level])
    levels = {layer: each.at(shares) for layer, each in quantiles.items()}
    tallies = {layer: AgreementTally(levels[layer], classes) for layer in layers}
    if scheme == "information":
        for layer, activations, ask in _seen(model, segmenter, *first, layers, "choice"):
            tallies[layer].add(activations, ask())
        chosen = {layer: best_levels(tally) for layer, tally in tallies.items()}
        tallies = {layer: AgreementTally(levels[layer], classes) for layer in layers}
    else:
        chosen = {layer: torch.zeros(len(levels[layer]), classes, dtype=torch.long) for layer in layers}
    for layer, activations, ask in _seen(model, segmenter, *second, layers, "agreement"):
        tallies[layer].add(activations, ask())
    return {
        layer: agreement_of(layer, tallies[layer], chosen[layer], levels[layer], shares, segmenter.classes)
        for layer in layers
    }


def best_levels(tally: AgreementTally) -> Tensor:
    """For each unit and class the threshold of most information, of those where both agree: (C, classes)."""
    quality = tally.information_quality().where(tally.agreement() > CUT_AGREEMENT, torch.zeros(()).double())
    return quality.argmax(1)


def agreement_of(
    layer: str, tally: AgreementTally, chosen: Tensor, levels: Tensor, shares: Tensor, classes: Sequence[str]
) -> Agreement:
    """The figures at the chosen thresholds, (units, classes)."""
    where = chosen[:, None, :]
    nothing = torch.zeros((), dtype=torch.float64)
    frequent = tally.present / tally.pixels >= CUT_SHARE
    return Agreement(
        layer, tuple(classes), tally.iou().gather(1, where)[:, 0].where(frequent, nothing),
        tally.information_quality().gather(1, where)[:, 0], levels.gather(1, chosen), shares[chosen],
    )  # fmt: skip


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
        for rows, images in tqdm(probe.batches(codes, BATCH), desc=title, total=total, leave=False):
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
    """bool (batch, classes, H, W): the true masks where they are known, else those of the segmenter."""
    if known is not None:
        return one_hot(known, len(segmenter.classes))
    return segmenter.segment(images.clamp(0, 1).float())


def best_by_class(found: Mapping[str, Agreement]) -> dict[str, UnitRow]:
    """The unit that agrees best with each class that any does, whatever it agrees with better; best first."""
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
    """Layer to (units, interpretable units, classes that these tell)."""
    found = {}
    for layer in dict.fromkeys(row.layer for row in rows):
        of = [row for row in rows if row.layer == layer]
        told = [row for row in of if row.interpretable]
        found[layer] = (len(of), len(told), len({row.label for row in told}))
    return found
