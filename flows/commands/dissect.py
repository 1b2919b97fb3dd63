"""flows dissect: which classes the units of a model draw, and what is gone without them."""

from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from flows.commands.common import data_of, load, load_segmenter, print_table, write_json
from flows.commands.steer.apply import encoded
from flows.dissection.causal import Ablation, ablate, by_random_units, class_pixels
from flows.dissection.dissect import Agreement, Scheme, Source, best_by_class, counts, samples
from flows.dissection.dissect import dissect as run
from flows.dissection.instrument import layers_of
from flows.dissection.report import Dissected, top_images, write_dissection_report
from flows.images import reduce
from flows.models.base import LatentModel
from flows.page import as_text
from flows.semantics.base import Segmenter

ABLATED = 200
"""Codes on which units are switched off."""
SIZES = (1, 5, 20, 50, 100)
LAYERS = 8
"""Dissected unless they are named, besides the code's."""
FEWEST = 0.02
"""Share of images that must have a class for its units to be switched off."""


def dissect(
    checkpoint: str,
    layers: list[str] | None = None,
    segmenter: str = "checkpoints/scenes-segmenter",
    source: Literal["samples", "images"] = "samples",
    n: PositiveInt = 2000,
    space: str | None = None,
    scheme: Scheme = "information",
    level: PositiveFloat = 0.01,
    classes: list[str] | None = None,
    units: PositiveInt = 20,
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
        layers: names of layers; None takes some of the outermost, and the code's.
        segmenter: checkpoint of a segmenter.
        source: samples, seen by the segmenter, or real test images, encoded, with their true masks.
        n: codes; half of them choose thresholds, the other half is counted.
        space: of the codes; None takes the model's search space.
        scheme: of thresholds: for each unit and class the one with most information, or one quantile for all.
        level: of `quantile`, the share of places at which a unit is active.
        classes: whose units are switched off; None takes all that enough images have.
        units: switched off at most.
        seed: of samples.
        out: folder for index.html, layers.png, gallery.png, ablation.png and units.json.
        json: file for the result, beside the one in `out`.
        device: torch device.
    """
    model = load(checkpoint, device)
    judge = load_segmenter(segmenter, model)
    space = space or model.search_space
    codes = samples(model, n, space, seed) if source == "samples" else real(model, n, space)
    chosen = layers or default_layers(model, space)
    known = layers_of(model, space)
    for name in chosen:
        if name not in known:
            raise ValueError(f"--layers: there is no layer {name!r}; expected some of {', '.join(known)}")
    found = run(model, judge, codes, chosen, scheme, level)
    rows = [row for each in found.values() for row in each.rows()]
    best = [row for row in best_by_class(rows).values() if row.interpretable]
    ablations = switch_off(model, judge, samples(model, ABLATED, space, seed + 1), found, classes, units)
    title = f"Units of {Path(checkpoint).name}, {len(codes.codes)} {source}"
    result = Dissected(title, rows, ablations, top_images(model, codes, best[:16]))
    written = write_dissection_report(out, result)
    told = {"checkpoint": checkpoint, "segmenter": segmenter, "source": source, "n": n, **result.as_dict()}
    for path in (out / "units.json", json):
        write_json(path, told)
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
    print(f"written to {out}: {', '.join(written)}, units.json")


def real(model: LatentModel, n: int, space: str) -> Source:
    """Codes of the first n test images with their true masks. Raises ValueError where there are none."""
    batch = data_of(model, None).split("test").first(n)
    if batch.masks is None:
        raise ValueError("--source images: the model's data set has no class masks; take samples")
    images = reduce(batch.images, model.bins)
    return Source(
        encoded(model, images, space).to(model.dtype), space, model.first_class(len(images)), batch.masks
    )


def default_layers(model: LatentModel, space: str) -> list[str]:
    """Parts of the code, and some of the outermost numbered layers that are no colours, evenly chosen."""
    colours, units = model.image_shape[0], model.units()
    parts = [name for name in layers_of(model, space) if name not in units]
    numbered = [
        name for name, unit in units.items() if name.split(".")[-1].isdigit() and unit.channels > colours
    ]
    depth = min((name.count(".") for name in numbered), default=0)
    outer = [name for name in numbered if name.count(".") == depth]
    step = -(-len(outer) // LAYERS) if outer else 1
    return parts + outer[::step]


def switch_off(
    model: LatentModel,
    judge: Segmenter,
    source: Source,
    found: dict[str, Agreement],
    classes: list[str] | None,
    units: int,
) -> list[Ablation]:
    """For each class the units of the layer that agrees best with it, switched off in their order."""
    for name in classes or []:
        if name not in judge.classes:
            raise ValueError(f"--classes: there is no {name!r}; the segmenter has {', '.join(judge.classes)}")
    before = class_pixels(model, judge, source)
    share = (before > 0).double().mean(0)
    ablations, chance = [], {}
    for i, label in enumerate(judge.classes):
        if share[i] < FEWEST or (classes is not None and label not in classes):
            continue
        best = max(found.values(), key=lambda each: float(each.iou[:, i].max()))
        if float(best.iou[:, i].max()) <= 0:
            continue
        order = best.order(label)
        sizes = [size for size in SIZES if size <= min(units, len(order))]
        if best.layer not in chance:
            chance[best.layer] = by_random_units(model, judge, source, best.layer, sizes, before)
        known = chance[best.layer]
        ablations.append(ablate(model, judge, source, best.layer, label, order, sizes, before, known))
    return ablations
