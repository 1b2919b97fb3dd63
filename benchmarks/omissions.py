r"""What `flows omissions` ranks first for models that were trained without a class.

    for class in person vehicle; do for seed in 0 1 2; do
        python train.py --config configs/scenes/dcgan.yaml --variant without-$class --training.seed $seed \
            --folder runs/dcgan-$class-$seed        # likewise glow.yaml: six to sixteen minutes a run
    done; done                                      # for a control, --data.withhold null
    python benchmarks/omissions.py runs/*-*-* --output benchmarks/results

A row for each run: the class withheld, its place among all classes by the share of pixels in samples, and
by the energy of its pixels in a flow's code; and the class that comes next. Writes omissions.json and prints
the table of docs/dissection.md.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from flows import images as pixels
from flows.commands.common import print_table, write_json
from flows.commands.omissions import ENERGIES, implausible, shares
from flows.dissection.omissions import omissions
from flows.inversion.base import nothing_to_add
from flows.opening import data_of, load_segmenter, open_model
from flows.training.validation import draw


def measure(run: Path, segmenter: Path, n: int) -> dict[str, Any]:
    """What one run omits."""
    model = open_model(str(run), None)
    judge = load_segmenter(str(segmenter), model)
    withheld = model.description["source"]["init_args"].get("withhold") or []
    test = pixels.reduce(data_of(model, None).split("test").first(n).images, model.bins)
    found = omissions(
        shares(judge, test, model), shares(judge, draw(model, n, 1.0, 0), model), judge.classes
    ).rows
    energies = implausible(model, judge, test[:ENERGIES], 0).rows if nothing_to_add(model) else []
    return {
        "run": run.name, "model": type(model).__name__, "withheld": withheld[0] if withheld else None,
        "seed": yaml.safe_load((run / "config.yaml").read_text())["training"]["seed"],
        "samples": [[row.label, row.relative] for row in found],
        "energies": [[row.label, row.energy] for row in energies],
    }  # fmt: skip


def told(ranked: list[list[Any]], label: str | None, form: str) -> list[str]:
    """The withheld class's place, its figure, and the first of the others."""
    if not ranked:
        return ["–", "–", "–"]
    names = [name for name, _ in ranked]
    others = next(f"{name} {format(value, form)}" for name, value in ranked if name != label)
    if label not in names:
        return ["–", "–", others]
    place = names.index(label)
    return [str(place + 1), format(ranked[place][1], form), others]


def main() -> None:
    """Print the table and write omissions.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of `train.py`")
    parser.add_argument("--segmenter", type=Path, default=Path("checkpoints/scenes-segmenter"))
    parser.add_argument("--n", type=int, default=2000, help="samples, and test images")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    rows = [measure(run, given.segmenter, given.n) for run in given.runs]
    rows.sort(key=lambda row: (row["model"], str(row["withheld"]), row["seed"]))
    head = ["model", "without", "seed", "by samples", "", "next", "by energy", "", "next"]
    print_table(head, [
        [row["model"], row["withheld"] or "–", str(row["seed"]),
         *told(row["samples"], row["withheld"], "+.0%"), *told(row["energies"], row["withheld"], ".2f")]
        for row in rows
    ])  # fmt: skip
    write_json(given.output / "omissions.json", {"n": given.n, "runs": rows})


if __name__ == "__main__":
    main()
