"""Units of classes, in order: their ablation, their insertion, and the removal of an artefact."""

from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from flows.dissection.agreement import Agreement, best_layer
from flows.dissection.artefacts import Cleaning, clean
from flows.dissection.causal import Ablation, ablate, by_random_units, class_means, class_pixels
from flows.dissection.intervention import Insertion, insertion, learned_order
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Segmenter

UnitOrder = Literal["agreement", "learned"]
SIZES = (1, 5, 20, 50, 100)
"""Numbers of units that are ablated together."""
INSERTED = 24
"""Number of codes into which units are inserted at every location."""
MIN_SHARE = 0.02
"""Minimum share of images that contain a class, for its units to be ablated."""


@dataclass(frozen=True, kw_only=True)
class UnitsOfClasses:
    """Units of the layer that agrees best with a class, in the order of their relevance to it.

    Orders and mean activations are computed on demand and cached.

    Attributes:
        model: Model whose units are ordered.
        segmenter: Segmenter of the classes.
        codes: Codes on which units are ablated and inserted; no unit was selected on them.
        learned_on: Codes on which orders and mean activations are learned.
        found: Agreement of units and classes, by layer.
        order: Order by IoU with the class (`agreement`), or by the learned effect on it (`learned`).
        most: Maximum number of units of a class that are changed.
        notes: Sentences on classes to which no unit responds.
        orders, means: Cached orders and mean activations, by layer and class.
    """

    model: LatentModel
    segmenter: Segmenter
    codes: Codes
    learned_on: Codes
    found: dict[str, Agreement]
    order: UnitOrder
    most: int
    notes: list[str] = field(default_factory=list)
    orders: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    means: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def layer(self, label: str) -> str | None:
        """Layer that agrees best with a class; adds a note and returns None if no unit responds to it."""
        layer = best_layer(self.found, label, self.most)
        if layer is None:
            self.notes.append(f"no unit responds to the class {label!r}")
        return layer

    def units(self, layer: str, label: str) -> list[int]:
        """All units of the layer, the most relevant to the class first."""
        if self.order == "agreement":
            return self.found[layer].order(label)
        key = layer, label
        if key not in self.orders:
            self.orders[key] = learned_order(
                self.model, self.segmenter, self.learned_on, self.found[layer], label, self.values(*key)
            )
        return self.orders[key]

    def values(self, layer: str, label: str) -> Tensor:
        """Values (channels,) to which units are set to generate the class; see `class_means`."""
        key = layer, label
        if key not in self.means:
            self.means[key] = class_means(self.model, self.segmenter, self.learned_on, layer, label)
        return self.means[key]

    def ablate(self, classes: list[str] | None) -> list[Ablation]:
        """Ablate the units of each class that enough images contain; None takes all classes."""
        before = class_pixels(self.model, self.segmenter, self.codes)
        share = (before > 0).double().mean(0)
        ablations = []
        chance: dict[str, dict[int, Tensor]] = {}
        for i, label in enumerate(self.segmenter.classes):
            if share[i] < MIN_SHARE or (classes is not None and label not in classes):
                continue
            layer = best_layer(self.found, label, self.most)
            if layer is None:
                continue
            units = self.units(layer, label)
            sizes = [size for size in SIZES if size <= min(self.most, len(units))]
            place = self.model, self.segmenter, self.codes, layer
            if layer not in chance:
                chance[layer] = by_random_units(*place, sizes, before)
            ablations.append(ablate(*place, label, units, sizes, before, chance[layer]))
        return ablations

    def insert(self, label: str) -> Insertion | None:
        """Insert the units of a class at every location in turn; None, with a note, without units."""
        layer = self.layer(label)
        if layer is None:
            return None
        units, values = self.units(layer, label)[: self.most], self.values(layer, label)
        return insertion(self.model, self.segmenter, self.codes[:INSERTED], layer, label, units, values)

    def remove(self, label: str, codes: Codes, real: Tensor, features: PooledFeatures) -> Cleaning | None:
        """Ablate the units of an artefact; None, with a note, without units.

        Args:
            label: Class of the artefact.
            codes: Codes of the samples.
            real: uint8 (n, C, H, W), test images without the artefact.
            features: Features by which samples and test images are compared.
        """
        layer = self.layer(label)
        if layer is None:
            return None
        units = self.units(layer, label)[: self.most]
        return clean(self.model, self.segmenter, codes, layer, label, units, real, features)
