"""Success rates of drawing and erasing classes, measured by an attribute predictor.

    python benchmarks/painting.py      # a quarter of an hour on two cores

Every class is drawn into test images without it, of categories that can contain it, with the brush over the
bounding box of the class in another test image. It is erased from test images with it, with the brush over
its own bounding box. The brushes are exemplars, which the segmenter helps to choose, and twenty units; the
predictor is used by neither. Writes docs/results/painting.json and prints its tables.
"""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from saving import in_words, model_name, new_parser, publish, stored
from torch import Tensor

from flows import images as pixels
from flows.display.results import Made, Result, Shown
from flows.dissection.paint import Brush, Stroke, paint
from flows.dissection.probe import default_layers, instrument
from flows.dissection.unit_brush import find_units
from flows.editing.editor import EXEMPLARS, exemplars_of
from flows.models.base import LatentModel
from flows.opening import data_of, load_predictor, load_segmenter, open_model
from flows.semantics.base import Predictor, column_of, predict_images, true_scores

CLASSES = ("window", "door", "bed", "lamp", "plant", "picture", "tree", "person", "vehicle", "banner")
MODELS = ("scenes-glow", "scenes-lia", "scenes64-glow", "scenes64-lia")
FEWEST = 12 / 32**2
"""Minimum share of an image that a class covers."""


@dataclass(frozen=True)
class Strip:
    """Images with one brush each.

    Attributes:
        images: uint8 (n, C, H, W).
        labels: int64 (n,), classes of the images.
        masks: bool (n, H, W), pixels under the brush.
    """

    images: Tensor
    labels: Tensor
    masks: Tensor


def box_of(mask: Tensor) -> Tensor:
    """Bounding box of a mask, bool (H, W), as a mask."""
    rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    box = torch.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def strips(batch: Any, truth: Tensor, column: int, label: int, n: int, fewest: int) -> dict[Stroke, Strip]:
    """Images into which a class is drawn and from which it is erased, with their brushes.

    Args:
        batch: Images with masks and labels.
        truth: True scores of the images, (images, scores).
        column: Column of the class in `truth`.
        label: Number of the class in the masks.
        n: Maximum number of images per stroke.
        fewest: Minimum number of pixels of the class in images that contain it.
    """
    area = (batch.masks == label).flatten(1).sum(1)
    has = torch.nonzero((truth[:, column] == 1) & (area >= fewest))[:, 0]
    possible = torch.isin(batch.labels, batch.labels[has])
    lacks = torch.nonzero((truth[:, column] == 0) & possible)[:n, 0]
    has = has[:n]
    boxes = torch.stack([box_of(batch.masks[i] == label) for i in has.tolist()])
    return {
        "draw": Strip(batch.images[lacks], batch.labels[lacks], boxes[torch.arange(len(lacks)) % len(boxes)]),
        "erase": Strip(batch.images[has], batch.labels[has], boxes),
    }


def share(
    model: LatentModel, predictor: Predictor, column: int, strip: Strip, brush: Brush, stroke: Stroke
) -> float:
    """Share of images whose prediction agrees with the stroke afterwards.

    An image without an exemplar for the brush stays as it is and is counted.
    """
    space, painted = model.search_space, []
    codes = model.encode_bytes(strip.images, space, strip.labels)
    with instrument(model, space) as probe:
        for code, image, mask in zip(codes.split(1), strip.images, strip.masks, strict=True):
            try:
                painted.append(paint(probe, code, image, [(brush, mask, stroke)]).image)
            except ValueError:
                painted.append(image)
    said = predict_images(predictor, pixels.to_unit(torch.stack(painted), model.bins), model.device)[
        :, column
    ]
    return float(((said > 0.5) == (stroke == "draw")).double().mean())


def measure(checkpoint: Path, n: int, units: bool) -> list[dict[str, Any]]:
    """Success rates of one model, one row per class."""
    model = open_model(str(checkpoint), None)
    predictor = load_predictor(None, model)
    segmenter = load_segmenter(None, model)
    space = model.search_space
    data = data_of(model, None)
    batch = data.split("test").first(4000)
    truth = true_scores(data.all_attributes(), batch.attributes)
    pictures = exemplars_of(model, segmenter, EXEMPLARS, space)
    rows = []
    fewest = round(FEWEST * batch.images[0, 0].numel())
    for label in CLASSES:
        column = column_of(predictor.scores, label)
        strip = strips(batch, truth, column, segmenter.classes.index(label), n, fewest)
        brushes: dict[str, Callable[[], Brush]] = {
            "exemplars": partial(pictures.brush, model, label),
        }
        if units:
            layers = default_layers(model, space)
            brushes["units"] = partial(find_units, model, segmenter, space, label, layers)
        row: dict[str, Any] = {"model": checkpoint.name, "class": label}
        for name, find in brushes.items():
            try:
                brush = find()
            except ValueError as error:
                row[name] = str(error)
                continue
            row[name] = {
                stroke: share(model, predictor, column, each, brush, stroke) for stroke, each in strip.items()
            }
        print(row, flush=True)
        rows.append(row)
    return rows


def measure_all(given: argparse.Namespace) -> dict[str, Any]:
    """Success rates of the given models, and the stored ones of all others."""
    old = stored(given.output, "painting")
    before = [] if old is None or old.data is None else old.data["rows"]
    rows = [row for row in before if row["model"] not in given.models]
    for name in given.models:
        rows += [{"n": given.n, **row} for row in measure(given.checkpoints / name, given.n, given.units)]
    return {"rows": rows}


def rates(rows: list[dict[str, Any]]) -> list[list[str]]:
    """Rows of a table: one per model, brush and stroke, with a cell per class."""
    lines = []
    for model in dict.fromkeys(row["model"] for row in rows):
        own = {row["class"]: row for row in rows if row["model"] == model}
        for brush in ("exemplars", "units"):
            if not any(brush in row for row in own.values()):
                continue
            for stroke in ("draw", "erase"):
                cells = []
                for label in CLASSES:
                    found = own.get(label, {}).get(brush)
                    reason = "" if found is None else "no unit" if brush == "units" else "no exemplar"
                    cells.append(f"{100 * found[stroke]:.0f}" if isinstance(found, dict) else reason)
                lines.append([f"{model_name(model)}, {brush}, {stroke}", *cells])
    return lines


def result(data: dict[str, Any], made: Made) -> Result:
    """Tables of the models of each size of images."""
    sizes = {
        "small": ("32×32", [row for row in data["rows"] if not row["model"].startswith("scenes64-")]),
        "large": ("64×64", [row for row in data["rows"] if row["model"].startswith("scenes64-")]),
    }
    columns = ["model, brush, stroke", *CLASSES]
    tables = {
        name: Shown(
            columns, rates(rows), f"{size}, {in_words(max(row['n'] for row in rows))} images", names=[0]
        )
        for name, (size, rows) in sizes.items()
        if rows
    }
    text = "Success rate in percent over held-out images, decided by the attribute predictor."
    return Result("Painting", made, tables, text, data=data)


def main() -> None:
    """Paint with all models; write painting.json and print its tables."""
    parser = new_parser(__doc__)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--n", type=int, default=50, help="number of images per class and stroke")
    parser.add_argument("--models", nargs="+", default=MODELS, help="models; rows of others are kept")
    parser.add_argument("--units", action=argparse.BooleanOptionalAction, default=True)
    given = parser.parse_args()
    publish(given, "painting", result, partial(measure_all, given))


if __name__ == "__main__":
    main()
