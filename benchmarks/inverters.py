r"""Tables and picture of reconstructions and edits, from folders of `flows compare --directions …`.

    flows compare --models checkpoints/scenes-{nice,realnvp,glow,stylegan} \
        --inverters exact optimise:w optimise:w+ layer tune tune:no-locality \
        --images test:64 user:photographs --noise true --directions daylight wood lamp_on yaw --out runs/a
    flows compare --models checkpoints/scenes-{lia,dcgan,pggan,biggan} \
        --inverters encoder:w hybrid in-domain:likelihood optimise optimise:w+ tune \
        --images test:64 user:photographs --noise true --directions daylight wood lamp_on yaw --out runs/b
    python benchmarks/inverters.py runs/a runs/b --picture docs/pictures/edits.png

One hour on two cores, one comparison on each. Writes docs/results/inverters.json and the picture, and prints
the tables. The table `perceptual` in this file is not made here: its distances of sixteen of the images were
measured apart. It is kept.
"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from saving import new_parser, number, publish
from torch import Tensor

from flows.data.scenes import Scenes
from flows.display.drawing import draw_rows, save_picture
from flows.display.page import as_fixed, as_interval
from flows.display.results import Made, Result, Shown
from flows.inversion.pairs import safe_name
from flows.inversion.summary import with_interval

SHOWN = 2
"""Number of images per direction in the picture: the first ones that have the factor."""
FRONT = (
    ("scenes-glow", "exact", "Glow, its exact inverse"),
    ("scenes-lia", "encoder:w", "LIA, its encoder"),
    ("scenes-lia", "hybrid", "LIA, {steps} steps from there"),
    ("scenes-stylegan", "optimise:w", "StyleGAN, projector in w, {steps} steps"),
    ("scenes-stylegan", "optimise:w+", "StyleGAN, projector in w+, {steps} steps"),
    ("scenes-stylegan", "tune", "StyleGAN, pivotal tuning, 450 + 350 steps"),
    ("scenes-dcgan", "tune", "DCGAN, pivotal tuning"),
)
"""Rows of the short table: model, inverter and label."""
EDIT = "daylight"
"""Edit of the short table."""
Row = dict[str, Any]


def decibel(row: Row) -> str:
    """Median PSNR of a row with its 95 % interval."""
    return with_interval(*(number(row, name) for name in ("psnr", "psnr_low", "psnr_high")))


def front(rows: list[Row]) -> Shown:
    """Short table: reconstruction, one edit and seconds of the inverters in `FRONT`."""
    found = {(row["model"], row["inverter"]): row for row in rows if row["group"] == "test"}
    edit = {
        pair: next((each for each in row["each_edit"] if each["direction"] == EDIT), None)
        for pair, row in found.items()
    }
    unedited = next(each["unedited"] for each in edit.values() if each)
    lines = [["the picture as it was", "–", "–", f"{unedited:.1f}", "–"]]
    for model, inverter, label in FRONT:
        if row := found.get((model, inverter)):
            edited, seconds = edit[model, inverter], number(row, "seconds")
            lines.append([
                label.format(steps=row["steps"]),
                as_fixed(number(row, "psnr"), ".1f"),
                f"{100 * number(row, 'bit_exact'):.0f} %",
                as_fixed(number(edited, "psnr"), ".1f") if edited else "–",
                f"{seconds:{'.1g' if seconds < 0.1 else '.2g'}}",
            ])  # fmt: skip
    columns = ["", "reconstruction, dB", "every byte", "edit, dB to the true one", "seconds"]
    return Shown(columns, lines, "In short")


def reconstructions(rows: list[Row], network: str) -> Shown:
    """Table of reconstructions: one line per model and inverter."""
    head = ["model", "inverter", "steps", "test, dB", "photographs, dB", "every byte",
            f"distance ({network})", "seconds / image"]  # fmt: skip
    lines = []
    for row in (each for each in rows if each["group"] == "test" and not each["note"]):
        same = ("model", "inverter")
        own = next(
            (each for each in rows if each["group"] == "user" and all(each[k] == row[k] for k in same)), None
        )
        lines.append(
            [
                row["model"].removeprefix("scenes-"),
                row["inverter"],
                str(row["steps"] or "–"),
                decibel(row),
                "–" if own is None or own["note"] else decibel(own),
                f"{100 * number(row, 'bit_exact'):.0f} %",
                f"{number(row, 'perceptual'):.2g}",
                f"{number(row, 'seconds'):.2g}",
            ]
        )
    return Shown(head, lines, "Reconstructions at published budgets")


def edits(rows: list[Row]) -> Shown:
    """Table of edits: PSNR to the true edit and, after the arrow, of the way back, for each direction."""
    edited = [row for row in rows if row["each_edit"]]
    names = list(dict.fromkeys(each["direction"] for row in edited for each in row["each_edit"]))
    head = ["model", "inverter", *names, "reached", "leakage"]
    unedited = {each["direction"]: each["unedited"] for row in edited for each in row["each_edit"]}
    lines = [["the picture itself", "–", *(f"{unedited[name]:.1f}" for name in names), "0 %", "–"]]
    for row in edited:
        found = {each["direction"]: each for each in row["each_edit"]}
        cells = [
            f"{number(found[name], 'psnr'):.1f} → {as_fixed(number(found[name], 'back'), '.1f')}"
            if name in found
            else "no direction"
            for name in names
        ]
        leakages = sorted(number(each, "leakage") for each in found.values())
        lines.append(
            [
                row["model"].removeprefix("scenes-"),
                row["inverter"],
                *cells,
                " ".join(f"{100 * number(each, 'reached'):.0f}" for each in found.values()) + " %",
                as_interval(leakages[0], leakages[-1], ".2f"),
            ]
        )
    return Shown(head, lines, "Edits", names=[0, 1])


def pictures(folders: list[Path], rows: list[Row]) -> tuple[list[tuple[str, Tensor]], list[str]]:
    """Labelled rows of images, and the heads of the columns: pictures, true edits, every method's edits."""
    sheet: list[tuple[str, Tensor]] = []
    shown: list[str] = []
    for folder, row in ((folder, row) for folder in folders for row in rows if row["each_edit"]):
        pair = safe_name(f"{row['model']}-{row['inverter']}-{row['group']}")
        path = folder / "pairs" / f"{pair}.safetensors"
        if not path.is_file():
            continue
        tensors = load_file(path)
        names = [each["direction"] for each in row["each_edit"]]
        if not sheet:
            scenes = Scenes().first("test", row["images"]).images
            numbers = torch.cat([tensors[f"edits.{i}.rows"][:SHOWN] for i in range(len(names))])
            targets = torch.cat([tensors[f"edits.{i}.target"][:SHOWN] for i in range(len(names))])
            sheet = [("image", scenes[numbers]), ("true edit", targets)]
            shown = names
        images = []
        for name in shown:
            blank = torch.full_like(sheet[0][1][:SHOWN], 255)
            images.append(tensors[f"edits.{names.index(name)}.images"][:SHOWN] if name in names else blank)
        sheet.append((f"{row['model'].removeprefix('scenes-')}, {row['inverter']}", torch.cat(images)))
    return sheet, [name.replace("_", " ") for name in shown for _ in range(SHOWN)]


def measure(folders: list[Path]) -> dict[str, Any]:
    """Rows of all comparisons, without those of pairs that do not fit."""
    tables = [json.loads((folder / "table.json").read_text()) for folder in folders]
    rows = [row for table in tables for row in table["rows"] if not row["note"]]
    return {"network": tables[0]["perceptual_network"], "loss": tables[0]["loss"], "rows": rows}


TEXT = (
    "Every method with its published number of steps, from one start, on test images of rendered rooms and "
    "on photographs; loss of the searches: {}. Reconstructions: median PSNR with its 95 % interval, seconds "
    "of one core. Edits: median PSNR to the scene that was rendered again with the change → to the picture "
    "itself, after another inversion and the way back; the first line is the picture as it was; `reached` is "
    "the share of the change that a predictor reads, `leakage` the smallest and largest change of another "
    "attribute. [How](../guides/editability.md)."
)


def result(data: dict[str, Any], made: Made) -> Result:
    """Short table, and tables of reconstructions and edits."""
    rows = data["rows"]
    tables = {
        "front": front(rows),
        "reconstructions": reconstructions(rows, data["network"]),
        "edits": edits(rows),
    }
    text = TEXT.format(data["loss"])
    return Result("Exact inversion beside GAN inversion", made, tables, text, data=data)


def main() -> None:
    """Write inverters.json and the picture, and print the tables."""
    parser = new_parser(__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--picture", type=Path)
    given = parser.parse_args()
    if not given.folders and (given.picture or not given.again):
        parser.error("folders: expected folders of flows compare")
    made = publish(given, "inverters", result, partial(measure, given.folders), read=True)
    if given.picture:
        sheet, head = pictures(given.folders, made.data["rows"])
        save_picture(draw_rows(sheet, head=head), given.picture)


if __name__ == "__main__":
    main()
