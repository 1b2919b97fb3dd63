r"""Rank of a class in `flows omissions`, for models that were trained without this class.

    for class in person vehicle; do for seed in 0 1 2; do
        python train.py --config configs/scenes/dcgan.yaml --variant without-$class --training.seed $seed \
            --folder runs/dcgan-$class-$seed        # also with glow.yaml; six to sixteen minutes per run
    done; done                                      # as a control, --data.withhold null
    python benchmarks/omissions.py runs/*-*-* --output benchmarks/results

The table has one row per run: the withheld class, its rank among all classes by the difference of its share
in samples and by the energy of a flow's code, and the first of the other classes. Writes omissions.json and
prints the table of docs/dissection.md.
"""

import argparse
from pathlib import Path
from typing import Any

import yaml

from flows.commands.common import write_json
from flows.display.table import Table
from flows.dissection.omission_study import OmissionSettings, study_omissions
from flows.opening import data_of, load_segmenter, open_model


def measure(run: Path, segmenter: Path, n: int) -> dict[str, Any]:
    """Classes of one run, ranked by samples and by energy."""
    model = open_model(str(run), None)
    loaded = load_segmenter(str(segmenter), model)
    withheld = model.description["source"]["init_args"].get("withhold") or []
    result = study_omissions(model, loaded, data_of(model, None), OmissionSettings(n=n))
    found, energies = result.found.rows, [] if result.energies is None else result.energies.rows
    return {
        "run": run.name, "model": type(model).__name__, "withheld": withheld[0] if withheld else None,
        "seed": yaml.safe_load((run / "config.yaml").read_text())["training"]["seed"],
        "samples": [[row.label, row.relative] for row in found],
        "energies": [[row.label, row.energy] for row in energies],
    }  # fmt: skip


def rank_cells(ranked: list[list[Any]], label: str | None, form: str) -> list[str]:
    """Rank of the withheld class, its figure, and the first of the other classes with its figure."""
    if not ranked:
        return ["–", "–", "–"]
    names = [name for name, _ in ranked]
    others = next(f"{name} {format(value, form)}" for name, value in ranked if name != label)
    if label not in names:
        return ["–", "–", others]
    rank = names.index(label)
    return [str(rank + 1), format(ranked[rank][1], form), others]


def main() -> None:
    """Print the table and write omissions.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs of train.py")
    parser.add_argument("--segmenter", type=Path, default=Path("checkpoints/scenes-segmenter"))
    parser.add_argument("--n", type=int, default=2000, help="number of samples, and of test images")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    rows = [measure(run, given.segmenter, given.n) for run in given.runs]
    rows.sort(key=lambda row: (row["model"], str(row["withheld"]), row["seed"]))
    head = ["model", "without", "seed", "by samples", "", "next", "by energy", "", "next"]
    Table(head, [
        [row["model"], row["withheld"] or "–", str(row["seed"]),
         *rank_cells(row["samples"], row["withheld"], "+.0%"),
         *rank_cells(row["energies"], row["withheld"], ".2f")]
        for row in rows
    ]).print()  # fmt: skip
    write_json(given.output / "omissions.json", {"n": given.n, "runs": rows})


if __name__ == "__main__":
    main()
