r"""Rank of a class in `flows omissions`, for models that were trained without this class.

    for class in person vehicle; do for seed in 0 1 2; do
        python train.py --config configs/scenes/dcgan.yaml --variant without-$class --training.seed $seed \
            --folder runs/dcgan-$class-$seed        # also with glow.yaml; six to sixteen minutes per run
    done; done                                      # as a control, --data.withhold null
    python benchmarks/omissions.py runs/*-*-*

The classes of a run are ranked by the difference of their shares in samples or, for a flow, by the energy of
its code. The table has one row per model and withheld class: the number of seeds that rank this class first,
its figures, and the next class. Writes docs/results/omissions.json and prints its table.
"""

import argparse
import statistics
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from saving import in_words, new_parser, publish

from flows.display.results import Made, Result, Shown
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


def measure_all(given: argparse.Namespace) -> dict[str, Any]:
    """Classes of all runs."""
    runs = [measure(run, given.segmenter, given.n) for run in given.runs]
    runs.sort(key=lambda run: (run["model"], str(run["withheld"]), run["seed"]))
    return {"n": given.n, "runs": runs}


def ranked(run: dict[str, Any]) -> list[list[Any]]:
    """Classes with their energies or, without a flow, differences of shares; the most affected one first."""
    found: list[list[Any]] = run["energies"] or run["samples"]
    return found


def extent(runs: list[dict[str, Any]], figures: list[float]) -> str:
    """Smallest and largest figure of several runs: energies in nats, or differences in percent."""
    energies = bool(runs[0]["energies"])
    both = (min(figures, key=abs), max(figures, key=abs))
    ends = [f"{value:.1f}" if energies else f"{100 * value:.0f}".replace("-", "−") for value in both]
    return " to ".join(dict.fromkeys(ends)) + (" nats" if energies else " %")


def withheld_cells(runs: list[dict[str, Any]]) -> list[str]:
    """Cells of the runs without a class: seeds that rank it first, its figures, and the next class."""
    label = runs[0]["withheld"]
    firsts = sum(ranked(run)[0][0] == label for run in runs)
    own = [value for run in runs for name, value in ranked(run) if name == label]
    others = [next((name, value) for name, value in ranked(run) if name != label) for run in runs]
    return [
        label,
        f"{firsts} of {len(runs)} seeds",
        extent(runs, own),
        ", ".join(sorted({name for name, _ in others})),
        extent(runs, [value for _, value in others]),
    ]


def control_cells(runs: list[dict[str, Any]]) -> list[str]:
    """Cells of the runs with all classes: the first two of them, by their mean figure."""
    figures: dict[str, list[float]] = {}
    for run in runs:
        for name, value in ranked(run):
            figures.setdefault(name, []).append(value)
    means = {name: statistics.fmean(values) for name, values in figures.items()}
    energies = bool(runs[0]["energies"])
    first = sorted(means, key=lambda name: -means[name] if energies else means[name])[:2]
    values = ", ".join(f"{means[name]:.2f}" for name in first).replace("-", "−")
    return ["none", "", "", ", ".join(first), values + (" nats" if energies else "")]


def result(data: dict[str, Any], made: Made) -> Result:
    """Table with one row per model and withheld class."""
    groups: dict[tuple[str, str | None], list[dict[str, Any]]] = {}
    for run in data["runs"]:
        groups.setdefault((run["model"], run["withheld"]), []).append(run)
    rows = [
        [model, *(control_cells(runs) if label is None else withheld_cells(runs))]
        for (model, label), runs in groups.items()
    ]
    rows.sort(key=lambda row: (row[0], row[1] == "none", row[1]))
    seeds = in_words(max(map(len, groups.values())))
    classes = in_words(len(ranked(data["runs"][0])))
    measured = "difference, or energy per pixel"
    columns = [
        "model",
        "withheld class",
        f"ranked first of {classes} classes",
        measured,
        "next class",
        measured,
    ]
    text = f"Models trained on churches without one class; {seeds} seeds each."
    tables = {"table": Shown(columns, rows, names=[0, 1, 4])}
    return Result("Withheld classes", made, tables, text, data=data)


def main() -> None:
    """Rank the classes of all runs; write omissions.json and print its table."""
    parser = new_parser(__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of runs of train.py")
    parser.add_argument("--segmenter", type=Path, default=Path("checkpoints/scenes-segmenter"))
    parser.add_argument("--n", type=int, default=2000, help="number of samples, and of test images")
    given = parser.parse_args()
    if not given.again and not given.runs:
        parser.error("runs: expected folders of runs of train.py")
    publish(given, "omissions", result, partial(measure_all, given))


if __name__ == "__main__":
    main()
