"""Recipes for few photographs: bits/dim of held-out photographs against the time of the training.

    python benchmarks/photographs.py ~/photographs/300 --pictures 300       # and 60, and 2000
    python benchmarks/small_folders.py ~/photographs --runs ~/small-folders

Trains `folder/glow` on 60, 300 and 2,000 photographs with one change of the recipe at a time. Runs that are
complete in the folder of `--runs` are read, not repeated; an interrupted one goes on. Writes
small-folders.json.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from saving import new_parser, publish

from flows.display.results import Made, Result, Shown
from flows.training.log import read_metrics

LENGTHS = {60: 12_000, 300: 36_000, 2_000: 160_000}
"""Number of images that a run shows, by the number of pictures."""
LOOKS = 40
"""Number of evaluations of a run."""
BASE = {
    "training.batch": "32", "training.lr": "1e-3", "training.warmup": "1_600", "training.decay": "cosine",
    "training.ema": "0.99", "training.augment": "[flip]", "training.patience": "null",
    "training.validation_images": "null", "training.threads": "1", "training.guard_every": "1_000_000",
}  # fmt: skip
"""Options of all runs."""
CHANGES: dict[str, dict[str, str]] = {
    "flip": {},
    "as they are": {"training.augment": "[]"},
    "flip, shift": {"training.augment": "[flip, shift]"},
    "flip, zoom": {"training.augment": "[flip, zoom]"},
    "flip, brightness": {"training.augment": "[flip, brightness]"},
    "flip, shift, zoom, brightness": {"training.augment": "[flip, shift, zoom, brightness]"},
    "flip, dropout 0.2": {"model.dropout": "0.2"},
    "flip, weight decay 0.1": {"training.optimiser": "adamw", "training.weight_decay": "0.1"},
    "flip, half the width and depth": {"model.width": "48", "model.depth": "4"},
    "flip, from scenes-glow": {"init": "scenes-glow"},
}
"""Options that differ from `BASE`, by their name in the table."""
LARGE = (
    "flip",
    "flip, shift",
    "flip, shift, zoom, brightness",
    "flip, dropout 0.2",
    "flip, from scenes-glow",
)
"""Changes that are tried on the largest folder, whose runs take half an hour each."""
TEXT = (
    "Crops of real photographs from Debian's wallpapers, scikit-image and scikit-learn "
    "(`benchmarks/photographs.py`), at 32×32; validation and test are of other photographs. `folder/glow` "
    "with one change of its recipe at a time. Bits/dim are those of the pictures as they are. Best: lowest "
    "bits/dim on validation, with the number of images and the minutes at which it stood; last: at the end "
    "of the run. Test: bits/dim of the best model on 200 pictures of photographs that neither training nor "
    "validation has. One run each: differences below 0.02 are within what another seed changes."
)


def run(folder: Path, runs: Path, pictures: int, name: str) -> None:
    """Train, unless the run is complete; continue one that was interrupted."""
    place = runs / f"{pictures}" / name.replace(", ", "-").replace(" ", "-")
    if (place / "report.json").is_file():
        return
    length = LENGTHS[pictures]
    every = {f"training.{each}": str(length // LOOKS) for each in ("validate_every", "log_every")}
    options = (
        BASE
        | every
        | {"training.images": str(length), "training.save_every": str(length // 4)}
        | CHANGES[name]
    )
    words = [word for option, value in options.items() for word in (f"--{option}", value)]
    resume = ["--resume", "latest"] if any(place.glob("state-*")) else ["--overwrite", "true"]
    command = [sys.executable, "-m", "flows", "train", "--config", "folder/glow", *words]
    command += ["--data.path", str(folder / str(pictures)), "--folder", str(place), *resume]
    print(pictures, name, flush=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    with open(place.with_suffix(".log"), "a") as log:
        subprocess.run(command, check=True, stdout=log, stderr=log)


def figures(runs: Path, pictures: int, name: str) -> dict[str, Any] | None:
    """Figures of a complete run; None if there is none."""
    place = runs / f"{pictures}" / name.replace(", ", "-").replace(" ", "-")
    if not (place / "report.json").is_file():
        return None
    report = json.loads((place / "report.json").read_text())
    lines = read_metrics(place / "metrics.jsonl")
    seconds = {line["images"]: line["seconds"] for line in lines if "seconds" in line}
    key = "validation/bits_per_dim"
    curve = [(line["images"], line[key], seconds.get(line["images"])) for line in lines if key in line]
    best = min(curve, key=lambda point: point[1])
    return {
        "pictures": pictures, "recipe": name, "curve": curve, "best": best, "last": curve[-1],
        "test": report["likelihood"]["bits_per_dim"], "parameters": report["parameters"],
    }  # fmt: skip


def build(data: Any, made: Made) -> Result:
    """Result of the figures of the runs."""
    tables = {}
    for pictures in LENGTHS:
        rows = []
        for each in data:
            if each["pictures"] != pictures:
                continue
            (images, bits, seconds), last = each["best"], each["last"]
            rows.append(
                [
                    each["recipe"],
                    f"{bits:.3f}",
                    f"{images:,}",
                    f"{images / pictures:.0f}",
                    f"{seconds / 60:.1f}",
                    f"{last[1]:.3f}",
                    f"{last[2] / 60:.1f}",
                    f"{each['test']:.3f}",
                ]  # fmt: skip
            )
        columns = [
            "recipe",
            "best, bits/dim",
            "images",
            "per picture",
            "minutes",
            "last",
            "minutes in all",
            "test",
        ]
        tables[f"of{pictures}"] = Shown(columns, rows, f"{pictures:,} photographs")
    return Result("Recipes for few photographs", made, tables, TEXT, data=data)


def main() -> None:
    """Run what is missing, and write the tables."""
    parser = new_parser(__doc__)
    parser.add_argument("folder", type=Path, nargs="?", help="folder with the folders 60, 300 and 2000")
    parser.add_argument("--runs", type=Path, help="folder of the runs")
    given = parser.parse_args()
    pairs = [(n, name) for n in LENGTHS for name in CHANGES if n < max(LENGTHS) or name in LARGE]

    def measure() -> list[dict[str, Any]]:
        for pictures, name in pairs:
            run(given.folder, given.runs, pictures, name)
        return [each for pair in pairs if (each := figures(given.runs, *pair)) is not None]

    publish(given, "small-folders", build, measure)


if __name__ == "__main__":
    main()
