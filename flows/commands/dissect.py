"""flows dissect: which classes the units of a model draw, and what is gone without them."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows.commands.common import print_table, write_json
from flows.dissection.artefacts import Cleaning, clean, without
from flows.dissection.causal import Ablation, ablate, by_random_units, class_means, class_pixels
from flows.dissection.dissect import Agreement, Scheme, best_by_class, best_layer, counts
from flows.dissection.dissect import dissect as run
from flows.dissection.instrument import default_layers, layers_of
from flows.dissection.intervention import Insertion, insertion, learned_order
from flows.dissection.report import (
    CLEANING_HEAD,
    Dissected,
    cleaning_rows,
    contexts_head,
    contexts_rows,
    top_images,
    write_dissection_report,
)
from flows.errors import Unsupported, UserError
from flows.images import reduce
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import bundled_model, first_test, load_segmenter, open_model
from flows.page import as_text
from flows.semantics.base import Segmenter

ABLATED = 200
"""Codes on which units are switched off."""
SIZES = (1, 5, 20, 50, 100)
LEARNED = 400
"""Codes on which the order of units is learned, and what is put in is measured."""
REAL = 4000
"""Test images among which those without an artefact are looked for."""
INSERTED = 24
"""Codes into which units are put at every place."""
FEWEST = 0.02
"""Share of images that must have a class for its units to be switched off."""


def dissect(
    checkpoint: str,
    layers: list[str] | None = None,
    segmenter: str | None = None,
    source: Literal["samples", "images"] = "samples",
    n: PositiveInt = 2000,
    space: str | None = None,
    scheme: Scheme = "information",
    level: PositiveFloat = 0.01,
    classes: list[str] | None = None,
    units: PositiveInt = 20,
    order: Literal["agreement", "learned"] = "agreement",
    insert: list[str] | None = None,
    artefact: str | None = None,
    seed: NonNegativeInt = 0,
    out: Path = Path("dissection"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Find the class that every unit of a model's layers agrees with, and switch the best units off.

    Layers are the model's units (feature maps of a generator, hidden states and coupling networks of a flow)
    and parts of the code itself where they lie over the image, as `code/level2` of a Glow.

    Args:
        checkpoint: folder or hub repository of the model.
        layers: names of layers; None takes some of the outermost, of the networks inside, and the code's.
        segmenter: checkpoint of a segmenter; None takes the shipped one for its images.
        source: samples, seen by the segmenter, or real test images, encoded, with their true masks.
        n: codes; half of them choose thresholds, the other half is counted.
        space: of the codes; None takes the model's search space.
        scheme: of thresholds: for each unit and class the one with most information, or one quantile for all.
        level: of `quantile`, the share of places at which a unit is active.
        classes: whose units are switched off; None takes all that enough images have.
        units: of a class, switched off or put in at most.
        order: of a class's units: by their agreement with it, or by how much it needs them, which is learned
            (a minute or so for each class).
        insert: classes whose units are set at every place in turn, to see where they can be put.
        artefact: class that nobody wants, as `banner`: its units are switched off, and samples compared with
            test images that are without it.
        seed: of samples.
        out: folder for index.html, its pictures and units.json.
        json: file for the result, beside the one in `out`.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    segmenter = segmenter or bundled_model("segmenter", model)
    judge = load_segmenter(segmenter, model)
    space = space or model.search_space
    codes, masks = (model.sample(n, space, seed), None) if source == "samples" else real(model, n, space)
    check_layers(model, space, layers)
    chosen = layers or default_layers(model, space)
    if not chosen:
        raise Unsupported(
            f"no layer of {type(model).__name__} lies over the image: there is nothing to dissect"
        )
    for option, labels in (("--classes", classes), ("--insert", insert), ("--artefact", artefact)):
        for label in [labels] if isinstance(labels, str) else labels or []:
            check_class(option, label, judge)
    # Before the long work: what is missing should be missed at once.
    wanted = clean_images(model, judge, artefact) if artefact else None
    found = run(model, judge, codes, chosen, scheme, level, masks)
    rows = [row for each in found.values() for row in each.rows()]
    best = list(best_by_class(found).values())
    few = model.sample(ABLATED, space, seed + 1)
    ordered = Chosen(model, judge, few, model.sample(LEARNED, space, seed + 3), found, order)
    ablations = switch_off(ordered, classes, units)
    result = Dissected(
        f"Units of {Path(checkpoint).name}, {len(codes)} {source}",
        {
            "checkpoint": checkpoint, "segmenter": segmenter, "source": source, "n": n, "space": space,
            "scheme": scheme, "level": level, "order": order, "seed": seed,
        },
        rows, best, ablations, top_images(model, codes, [row for row in best if row.interpretable]),
        [each for label in insert or [] if (each := put_in(ordered, label, units))],
        take_out(ordered, model.sample(n, space, seed + 2), artefact, units, *wanted)
        if artefact and wanted
        else None,
    )  # fmt: skip
    written = write_dissection_report(out, result)
    for path in (out / "units.json", json):
        write_json(path, result.as_dict())
    print_table(
        ["layer", "units", "interpretable", "classes"],
        [[name, *map(str, each)] for name, each in counts(rows).items()],
    )
    if ablations:
        print_table(
            ["class", "layer", "units off", "removed", "by random units"],
            [
                [
                    each.label,
                    each.layer,
                    str(each.sizes[-1]),
                    as_text(each.removed[-1]),
                    as_text(each.random[-1]),
                ]
                for each in ablations
            ],
        )
    for each in result.insertions:
        print_table(contexts_head(each), contexts_rows(each))
    if result.cleaning is not None:
        print_table(CLEANING_HEAD, cleaning_rows(result.cleaning))
    print(f"written to {out}: {', '.join(written)}, units.json")


def real(model: LatentModel, n: int, space: str) -> tuple[Codes, Tensor]:
    """Codes of the first n test images, and their true masks. Raises UserError without masks."""
    batch = first_test(model, n)
    if batch.masks is None:
        raise UserError("--source images: the model's data set has no class masks; take samples")
    return model.encode_bytes(batch.images, space, batch.labels), batch.masks


def check_layers(model: LatentModel, space: str, layers: list[str] | None) -> None:
    """Raise ValueError naming those that there are."""
    known = layers_of(model, space)
    for name in layers or []:
        if name not in known:
            raise UserError(f"--layers: there is no layer {name!r}; expected some of {', '.join(known)}")


@dataclass(frozen=True)
class Chosen:
    """Which units stand for a class, in which order.

    Attributes:
        model, judge: whose, and by whom classes are seen.
        codes: Codes on which units are ablated and inserted; none that any unit was chosen on.
        learned_on: codes on which their order is learned.
        found: agreement by layer.
        order: see `dissect`.
        orders, means: that were asked for already, by layer and class.
    """

    model: LatentModel
    judge: Segmenter
    codes: Codes
    learned_on: Codes
    found: dict[str, Agreement]
    order: Literal["agreement", "learned"]
    orders: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    means: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def units(self, layer: str, label: str) -> list[int]:
        """All units of the layer, those that matter most to the class first."""
        if self.order == "agreement":
            return self.found[layer].order(label)
        if (layer, label) not in self.orders:
            self.orders[layer, label] = learned_order(
                self.model, self.judge, self.learned_on, self.found[layer], label, self.values(layer, label)
            )
        return self.orders[layer, label]

    def values(self, layer: str, label: str) -> Tensor:
        """What is put in to draw the class; see `class_means`."""
        if (layer, label) not in self.means:
            self.means[layer, label] = class_means(self.model, self.judge, self.learned_on, layer, label)
        return self.means[layer, label]


def check_class(option: str, label: str, judge: Segmenter) -> None:
    """Raise ValueError naming the classes that there are."""
    if label not in judge.classes:
        raise UserError(f"{option}: there is no {label!r}; the segmenter has {', '.join(judge.classes)}")


def switch_off(chosen: Chosen, classes: list[str] | None, units: int) -> list[Ablation]:
    """For each class the units of the layer that agrees best with it, switched off in their order."""
    model, judge, codes = chosen.model, chosen.judge, chosen.codes
    before = class_pixels(model, judge, codes)
    share = (before > 0).double().mean(0)
    ablations, chance = [], {}
    for i, label in enumerate(judge.classes):
        if share[i] < FEWEST or (classes is not None and label not in classes):
            continue
        layer = best_layer(chosen.found, label, units)
        if layer is None:
            continue
        order = chosen.units(layer, label)
        sizes = [size for size in SIZES if size <= min(units, len(order))]
        if layer not in chance:
            chance[layer] = by_random_units(model, judge, codes, layer, sizes, before)
        ablations.append(ablate(model, judge, codes, layer, label, order, sizes, before, chance[layer]))
    return ablations


def put_in(chosen: Chosen, label: str, units: int) -> Insertion | None:
    """The units of a class set at every place; None, and a line that says so, where none agrees with it."""
    layer = best_layer(chosen.found, label, units)
    if layer is None:
        print(f"--insert {label}: no unit agrees with it")
        return None
    few = chosen.codes[:INSERTED]
    which = chosen.units(layer, label)[:units]
    return insertion(chosen.model, chosen.judge, few, layer, label, which, chosen.values(layer, label))


def clean_images(model: LatentModel, judge: Segmenter, label: str) -> tuple[Tensor, PooledFeatures]:
    """Test images without an artefact, and what sets of images are compared by.

    Raises:
        ValueError: hardly a test image is without it, or the extra `metrics` is missing.
    """
    features = PooledFeatures()
    test = reduce(first_test(model, REAL).images, model.bins)
    return without(test, judge, label, model), features


def take_out(
    chosen: Chosen, codes: Codes, label: str, units: int, real: Tensor, features: PooledFeatures
) -> Cleaning | None:
    """The units of an artefact off; None, and a line that says so, where no unit agrees with it."""
    layer = best_layer(chosen.found, label, units)
    if layer is None:
        print(f"--artefact {label}: no unit agrees with it")
        return None
    which = chosen.units(layer, label)[:units]
    return clean(chosen.model, chosen.judge, codes, layer, label, which, real, features)
