"""`flows dissect`: find the classes that units respond to, and ablate and insert units."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from torch import Tensor

from flows.bounds import PositiveFloat, PositiveInt, Seed
from flows.commands.common import check_outputs, write_json
from flows.data.base import ImageData
from flows.dissection.agreement import Agreement, Scheme, best_by_class, best_layer, counts
from flows.dissection.agreement import dissect as run
from flows.dissection.artefacts import Cleaning, clean, without
from flows.dissection.causal import Ablation, ablate, by_random_units, class_means, class_pixels
from flows.dissection.intervention import Insertion, insertion, learned_order
from flows.dissection.probe import default_layers, layers_of
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
from flows.terminal import print_table

ABLATED = 200
"""Number of codes on which units are ablated."""
SIZES = (1, 5, 20, 50, 100)
"""Numbers of units that are ablated together."""
LEARNED = 400
"""Number of codes on which the order of units and their mean activation on a class are learned."""
REAL = 4000
"""Number of test images that are searched for images without an artefact."""
INSERTED = 24
"""Number of codes into which units are inserted at every location."""
MIN_SHARE = 0.02
"""Minimum share of images that contain a class, for its units to be ablated."""


def dissect(
    checkpoint: str,
    layers: list[str] | None = None,
    segmenter: str | None = None,
    source: Literal["samples", "images"] = "samples",
    n: PositiveInt = 2000,
    space: str | None = None,
    scheme: Scheme = "information",
    share: PositiveFloat = 0.01,
    classes: list[str] | None = None,
    units: PositiveInt = 20,
    order: Literal["agreement", "learned"] = "agreement",
    insert: list[str] | None = None,
    artefact: str | None = None,
    seed: Seed = 0,
    out: Path = Path("dissection"),
    json: Path | None = None,
    data: ImageData | None = None,
    device: str | None = None,
) -> None:
    """Find the class that each unit of a model responds to, and ablate the best units of each class.

    Layers are feature maps of a generator, hidden states and coupling networks of a flow, and spatial parts
    of the code, such as `code/level2` of a Glow.

    Args:
        checkpoint: Folder or hub repository of the model.
        layers: Names of layers; None takes some of the outermost layers, some layers inside the coupling
            networks of a flow, and the spatial parts of the code.
        segmenter: Checkpoint of a segmenter; None takes the included one for the model's images.
        source: Source of the codes: samples, with masks from the segmenter, or encoded test images, with
            ground-truth masks.
        n: Number of codes; one half determines the thresholds, the other half is used for the counts.
        space: Latent space of the codes; None takes the model's search space.
        scheme: Choice of the thresholds: for each unit and class the one with the highest information
            quality, or one quantile for all.
        share: Share of locations at which a unit is active, for the scheme `quantile`.
        classes: Classes whose units are ablated; None takes all. Classes in too few images are skipped.
        units: Maximum number of units of a class that are ablated or inserted.
        order: Order of a class's units: by IoU with the class, or by their learned effect on it, which takes
            about one minute per class.
        insert: Classes whose units are set at every location in turn, to find where they can be inserted.
        artefact: Unwanted class, such as `banner`, whose units are ablated; the samples are compared with
            test images that do not contain it.
        seed: Seed of the samples.
        out: Output folder for index.html, its pictures and units.json.
        json: Additional file for the contents of units.json.
        data: Data set of the test images; None takes the one that the model was trained on.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    segmenter = segmenter or bundled_model("segmenter", model)
    loaded = load_segmenter(segmenter, model)
    space = space or model.search_space
    samples = source == "samples"
    codes, masks = (model.sample(n, space, seed), None) if samples else real(model, n, space, data)
    check_layers(model, space, layers)
    chosen = layers or default_layers(model, space)
    if not chosen:
        raise Unsupported(f"{type(model).__name__} has no spatial layer: there is nothing to dissect")
    for option, labels in (("--classes", classes), ("--insert", insert), ("--artefact", artefact)):
        for label in [labels] if isinstance(labels, str) else labels or []:
            check_class(option, label, loaded)
    # Before the long computation, so that missing data and packages are reported at once.
    clean_set = clean_images(model, loaded, artefact, data) if artefact else None
    agreements = run(model, loaded, codes, chosen, scheme, share, masks)
    rows = [row for agreement in agreements.values() for row in agreement.rows()]
    by_iou = [row for agreement in agreements.values() for row in agreement.rows_by_iou()]
    best = list(best_by_class(agreements).values())
    few = model.sample(ABLATED, space, seed + 1)
    ordered = Chosen(
        model=model,
        segmenter=loaded,
        codes=few,
        learned_on=model.sample(LEARNED, space, seed + 3),
        found=agreements,
        order=order,
    )
    ablations = ablate_classes(ordered, classes, units)
    result = Dissected(
        title=f"Units of {Path(checkpoint).name}, {len(codes)} {source}",
        settings={
            "checkpoint": checkpoint,
            "segmenter": segmenter,
            "source": source,
            "n": n,
            "space": space,
            "scheme": scheme,
            "share": share,
            "order": order,
            "seed": seed,
        },
        rows=rows,
        rows_by_iou=by_iou,
        best=best,
        ablations=ablations,
        gallery=top_images(model, codes, [row for row in best if row.interpretable]),
        insertions=[inserted for label in insert or [] if (inserted := insert_units(ordered, label, units))],
        cleaning=remove_artefact(ordered, model.sample(n, space, seed + 2), artefact, units, *clean_set)
        if artefact and clean_set
        else None,
    )
    written = write_dissection_report(out, result)
    for path in (out / "units.json", json):
        write_json(path, result.as_dict())
    print_table(
        ["layer", "units", "interpretable", "classes", "interpretable, by IoU"],
        [
            [name, *map(str, numbers), str(others[1])]
            for (name, numbers), others in zip(counts(rows).items(), counts(by_iou).values(), strict=True)
        ],
    )
    print("interpretable: by the released rule of GAN dissection; by IoU: the class with the highest IoU")
    if ablations:
        print_table(
            ["class", "layer", "units ablated", "removed", "by random units"],
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


def real(model: LatentModel, n: int, space: str, data: ImageData | None) -> tuple[Codes, Tensor]:
    """Codes of the first n test images, and their true masks. Raises UserError if there are no masks."""
    batch = first_test(model, n, data)
    if batch.masks is None:
        raise UserError("--source images: the model's data set has no class masks; take --source samples")
    return model.encode_bytes(batch.images, space, batch.labels), batch.masks


def check_layers(model: LatentModel, space: str, layers: list[str] | None) -> None:
    """Raise UserError, naming the known layers, unless the model has all of `layers`."""
    known = layers_of(model, space)
    for name in layers or []:
        if name not in known:
            raise UserError(f"--layers: there is no layer {name!r}; expected some of {', '.join(known)}")


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """Units of a layer in the order of their relevance to a class; computed on demand and cached.

    Attributes:
        model: Model whose units are ordered.
        segmenter: Segmenter of the classes.
        codes: Codes on which units are ablated and inserted; no unit was selected on them.
        learned_on: Codes on which orders and mean activations are learned.
        found: Agreement of units and classes, by layer.
        order: Order by IoU with the class (`agreement`), or by the learned effect on it (`learned`).
        orders, means: Cached orders and mean activations, by layer and class.
    """

    model: LatentModel
    segmenter: Segmenter
    codes: Codes
    learned_on: Codes
    found: dict[str, Agreement]
    order: Literal["agreement", "learned"]
    orders: dict[tuple[str, str], list[int]] = field(default_factory=dict)
    means: dict[tuple[str, str], Tensor] = field(default_factory=dict)

    def units(self, layer: str, label: str) -> list[int]:
        """All units of the layer, the most relevant to the class first."""
        if self.order == "agreement":
            return self.found[layer].order(label)
        if (layer, label) not in self.orders:
            self.orders[layer, label] = learned_order(
                self.model,
                self.segmenter,
                self.learned_on,
                self.found[layer],
                label,
                self.values(layer, label),
            )
        return self.orders[layer, label]

    def values(self, layer: str, label: str) -> Tensor:
        """Values (channels,) to which units are set to generate the class; see `class_means`."""
        if (layer, label) not in self.means:
            self.means[layer, label] = class_means(self.model, self.segmenter, self.learned_on, layer, label)
        return self.means[layer, label]


def check_class(option: str, label: str, segmenter: Segmenter) -> None:
    """Raise UserError, naming the known classes, unless the segmenter has the class."""
    if label not in segmenter.classes:
        raise UserError(
            f"{option}: there is no class {label!r}; the segmenter has {', '.join(segmenter.classes)}"
        )


def ablate_classes(chosen: Chosen, classes: list[str] | None, units: int) -> list[Ablation]:
    """Ablate, for every class, the units of the layer that agrees best with it, in their order."""
    model, segmenter, codes = chosen.model, chosen.segmenter, chosen.codes
    before = class_pixels(model, segmenter, codes)
    share = (before > 0).double().mean(0)
    ablations, chance = [], {}
    for i, label in enumerate(segmenter.classes):
        if share[i] < MIN_SHARE or (classes is not None and label not in classes):
            continue
        layer = best_layer(chosen.found, label, units)
        if layer is None:
            continue
        order = chosen.units(layer, label)
        sizes = [size for size in SIZES if size <= min(units, len(order))]
        if layer not in chance:
            chance[layer] = by_random_units(model, segmenter, codes, layer, sizes, before)
        ablations.append(ablate(model, segmenter, codes, layer, label, order, sizes, before, chance[layer]))
    return ablations


def insert_units(chosen: Chosen, label: str, units: int) -> Insertion | None:
    """Insert the units of a class at every location in turn; prints a line and returns None without units."""
    layer = best_layer(chosen.found, label, units)
    if layer is None:
        print(f"--insert {label}: no unit responds to this class")
        return None
    few = chosen.codes[:INSERTED]
    inserted = chosen.units(layer, label)[:units]
    return insertion(chosen.model, chosen.segmenter, few, layer, label, inserted, chosen.values(layer, label))


def clean_images(
    model: LatentModel, segmenter: Segmenter, label: str, data: ImageData | None = None
) -> tuple[Tensor, PooledFeatures]:
    """Test images without an artefact, and the features by which sets of images are compared.

    Raises:
        TooFew: Too few test images are without the artefact.
        DataMissing: The extra `metrics` is not installed.
    """
    features = PooledFeatures()
    test = reduce(first_test(model, REAL, data).images, model.bins)
    return without(test, segmenter, label, model), features


def remove_artefact(
    chosen: Chosen, codes: Codes, label: str, units: int, real: Tensor, features: PooledFeatures
) -> Cleaning | None:
    """Ablate the units of an artefact; prints a line and returns None without units."""
    layer = best_layer(chosen.found, label, units)
    if layer is None:
        print(f"--artefact {label}: no unit responds to this class")
        return None
    ablated = chosen.units(layer, label)[:units]
    return clean(chosen.model, chosen.segmenter, codes, layer, label, ablated, real, features)
