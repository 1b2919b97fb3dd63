"""How often a class is there after it was painted, and gone after it was erased, as a predictor sees it.

    python benchmarks/painting.py --output benchmarks/results      # a quarter of an hour on two cores

For every class: test images without it, of places where it can be, the brush over the bounding box that the
thing has in another test image; and test images with it, the brush over its own. By exemplars, which the
segmenter helps to choose, and by twenty units. The attribute predictor, which judges, has no part in either.
Writes painting.json and prints the table of docs/dissection.md.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.commands.common import print_table, write_json
from flows.dissection.instrument import default_layers, instrument
from flows.dissection.paint import Brush, Stroke, paint
from flows.dissection.unit_brush import find_units
from flows.editing.codes import encoded
from flows.editing.editor import EXEMPLARS, exemplars_of
from flows.models.base import LatentModel
from flows.opening import data_of, load_predictor, load_segmenter, open_model
from flows.semantics.base import Predictor, column_of, predict_images, true_scores

CLASSES = ("window", "door", "bed", "lamp", "plant", "picture", "tree", "person", "vehicle", "banner")
MODELS = ("scenes-glow", "scenes-lia", "scenes64-glow", "scenes64-lia")
FEWEST = 12 / 32**2
"""Share of a picture that a thing covers at least."""


@dataclass(frozen=True)
class Strip:
    """Pictures with a brush each: uint8 (n, C, H, W), and bool (n, H, W)."""

    images: Tensor
    masks: Tensor


def box_of(mask: Tensor) -> Tensor:
    """The bounding box of a mask, bool (H, W), as one."""
    rows, columns = torch.nonzero(mask.any(1))[:, 0], torch.nonzero(mask.any(0))[:, 0]
    box = torch.zeros_like(mask)
    box[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1] = True
    return box


def strips(batch: Any, truth: Tensor, column: int, label: int, n: int, fewest: int) -> dict[Stroke, Strip]:
    """Images to draw a class in and to erase it from, with their brushes; tiny things are passed over."""
    area = (batch.masks == label).flatten(1).sum(1)
    has = torch.nonzero((truth[:, column] == 1) & (area >= fewest))[:, 0]
    possible = torch.isin(batch.labels, batch.labels[has])
    lacks = torch.nonzero((truth[:, column] == 0) & possible)[:n, 0]
    has = has[:n]
    boxes = torch.stack([box_of(batch.masks[i] == label) for i in has.tolist()])
    return {
        "draw": Strip(batch.images[lacks], boxes[torch.arange(len(lacks)) % len(boxes)]),
        "erase": Strip(batch.images[has], boxes),
    }


def share(
    model: LatentModel, judge: Predictor, column: int, strip: Strip, brush: Brush, stroke: Stroke
) -> float:
    """Of how many pictures the predictor says afterwards what was asked for.

    Where there is nothing to paint the class after under the brush, the picture stays as it is, and counts.
    """
    space, painted = model.search_space, []
    codes = encoded(model, strip.images, space)
    with instrument(model, space) as probe:
        for code, image, mask in zip(codes, strip.images, strip.masks, strict=True):
            try:
                painted.append(paint(probe, code[None], image, [(brush, mask, stroke)]).image)
            except ValueError:
                painted.append(image)
    said = predict_images(judge, pixels.to_unit(torch.stack(painted), model.bins), model.device)[:, column]
    return float(((said > 0.5) == (stroke == "draw")).double().mean())


def measure(checkpoint: Path, n: int, units: bool) -> list[dict[str, Any]]:
    """Rows of one model."""
    model = open_model(str(checkpoint), None)
    judge = load_predictor(None, model)
    segmenter = load_segmenter(None, model)
    space = model.search_space
    data = data_of(model, None)
    batch = data.split("test").first(4000)
    truth = true_scores(data.all_attributes(), batch.attributes)
    pictures = exemplars_of(model, segmenter, EXEMPLARS, space)
    rows = []
    fewest = round(FEWEST * batch.images[0, 0].numel())
    for label in CLASSES:
        column = column_of(judge.scores, label)
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
                stroke: share(model, judge, column, each, brush, stroke) for stroke, each in strip.items()
            }
        print(row, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    """Print the table and write painting.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--n", type=int, default=50, help="pictures for each class and stroke")
    parser.add_argument("--models", nargs="+", default=MODELS, help="rows of others stay as they are")
    parser.add_argument("--units", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    file = given.output / "painting.json"
    old = json.loads(file.read_text())["rows"] if file.is_file() else []
    rows = [row for row in old if row["model"] not in given.models]
    for name in given.models:
        found = measure(given.checkpoints / name, given.n, given.units)
        rows += [{"n": given.n, **row} for row in found]
    told = []
    for row in rows:
        cells = [row["model"], row["class"]]
        for found in (row["exemplars"], row.get("units")):
            measured = isinstance(found, dict)
            cells += [f"{100 * value:.0f}" for value in found.values()] if measured else ["–", "–"]
        told.append(cells)
    print_table(["model", "class", "exemplars: drawn, %", "erased, %", "units: drawn, %", "erased, %"], told)
    write_json(file, {"rows": rows})


if __name__ == "__main__":
    main()
