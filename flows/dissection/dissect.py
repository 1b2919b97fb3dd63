"""Network dissection: which class each unit agrees with (Bau et al. 2019, arXiv 1811.10597, section 3.1)."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from tqdm import tqdm

from flows.dissection.instrument import Probe, instrument
from flows.dissection.tally import AgreementTally, Quantiles, quantile_shares
from flows.models.base import LatentModel
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


@dataclass(frozen=True)
class Source:
    """Codes with the masks of what they draw: as a segmenter sees it, or as it is known.

    Attributes:
        codes: (n, D).
        space: of the codes.
        labels: (n,), of a class-conditional model.
        masks: uint8 (n, H, W), the truth; None asks the segmenter.
    """

    codes: Tensor
    space: str
    labels: Tensor | None = None
    masks: Tensor | None = None

    def part(self, which: slice) -> "Source":
        """Some of them."""
        labels = None if self.labels is None else self.labels[which]
        return Source(
            self.codes[which], self.space, labels, None if self.masks is None else self.masks[which]
        )


def samples(model: LatentModel, n: int, space: str, seed: int = 0) -> Source:
    """n codes of the prior, with classes in turn."""
    with torch.no_grad():
        codes = model.sample_codes(n, space, torch.Generator().manual_seed(seed))
    return Source(codes, space, model.classes_in_turn(n))


def dissect(
    model: LatentModel,
    segmenter: Segmenter,
    source: Source,
    layers: Sequence[str],
    scheme: Scheme = "information",
    level: float = 0.01,
) -> dict[str, Agreement]:
    """How the units of some layers agree with classes.

    Half of the codes choose the thresholds, the other half is counted. By `information` a unit has a
    threshold for each class, of 100 quantiles the one with most information quality; by `quantile` one for
    all.

    Args:
        model: in eval mode.
        segmenter: of the classes.
        source: 2n codes.
        layers: names; see `instrument.layers_of`.
        scheme: how thresholds are chosen.
        level: of `quantile`, the share of places at which a unit is active.

    Returns:
        agreement by layer.
    """
    half = len(source.codes) // 2
    first, second = source.part(slice(0, half)), source.part(slice(half, None))
    quantiles = {layer: Quantiles() for layer in layers}
    for layer, activations, _ in _seen(model, segmenter, first, layers, "thresholds"):
        quantiles[layer].add(activations)
    classes = len(segmenter.classes)
    shares = quantile_shares() if scheme == "information" else torch.tensor([level])
    levels = {layer: each.at(shares) for layer, each in quantiles.items()}
    tallies = {layer: AgreementTally(levels[layer], classes) for layer in layers}
    if scheme == "information":
        for layer, activations, masks in _seen(model, segmenter, first, layers, "choice"):
            tallies[layer].add(activations, masks())
        chosen = {layer: best_levels(tally) for layer, tally in tallies.items()}
        tallies = {layer: AgreementTally(levels[layer], classes) for layer in layers}
    else:
        chosen = {layer: torch.zeros(len(levels[layer]), classes, dtype=torch.long) for layer in layers}
    for layer, activations, masks in _seen(model, segmenter, second, layers, "agreement"):
        tallies[layer].add(activations, masks())
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


def drawn(probe: Probe, source: Source) -> Iterator[tuple[Source, Tensor]]:
    """Part of the source and its images as they are drawn, (batch, C, H, W), through the probe's changes."""
    model = probe.model
    for start in range(0, len(source.codes), BATCH):
        part = source.part(slice(start, start + BATCH))
        labels = None if part.labels is None else part.labels.to(model.device)
        yield part, probe.decode(part.codes.to(model.device, model.dtype), labels)


@torch.no_grad()
def _seen(
    model: LatentModel, segmenter: Segmenter, source: Source, layers: Sequence[str], told: str
) -> Iterator[tuple[str, Tensor, Callable[[], Tensor]]]:
    """Layer, activations, and what gives the masks, for each batch and layer."""
    with instrument(model, source.space) as probe, prepared():
        probe.retain(*layers)
        batches = -(-len(source.codes) // BATCH)
        for part, images in tqdm(drawn(probe, source), desc=told, total=batches, leave=False):
            masks: list[Tensor] = []

            def ask(images: Tensor = images, part: Source = part, masks: list[Tensor] = masks) -> Tensor:
                if not masks:
                    masks.append(masks_of(segmenter, images, part))
                return masks[0]

            for layer in layers:
                yield layer, probe.kept[layer], ask


def masks_of(segmenter: Segmenter, images: Tensor, source: Source) -> Tensor:
    """bool (batch, classes, H, W): the truth where it is known, else what the segmenter sees."""
    if source.masks is not None:
        return one_hot(source.masks, len(segmenter.classes))
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
