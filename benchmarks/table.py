"""Tables of the documentation, from the reports of `train.py` and `flows dissect`.

python benchmarks/table.py checkpoints/fashion-nice checkpoints/fashion-realnvp checkpoints/fashion-glow
python benchmarks/table.py --samples checkpoints/scenes-*
python benchmarks/table.py --units runs/*-dissection      # folders of flows dissect
"""

import argparse
import json
from pathlib import Path
from typing import Any

from flows.display.table import Table

COLUMNS = (
    "model", "parameters", "images", "minutes", "test bits/dim", "test images exact", "OOD images exact",
    "largest error, test", "photographs", "noise", "checkerboards", "fp64",
)  # fmt: skip
PHOTOGRAPHS = ("cat", "person", "coffee", "rocket", "galaxies", "temple", "flower")


def line(folder: Path) -> list[str]:
    """Row of the table of flows: likelihood and round trips."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    rows = {(row["group"], row["precision"]): row for row in report["roundtrip"]}
    single = [row for (_, precision), row in rows.items() if precision == "fp32"]
    ood = [row for row in single if row["group"] != "test"]

    def exact(chosen: list[dict[str, Any]]) -> str:
        count = sum(round(row["bit_exact"] * row["images"]) for row in chosen)
        return f"{count:,} / {sum(row['images'] for row in chosen):,}"

    def largest(chosen: list[dict[str, Any]]) -> str:
        return (
            f"{max(row['max_error'] for row in chosen):.0e}"
            if all(row["finite"] for row in chosen)
            else "not finite"
        )

    def named(*words: str) -> list[dict[str, Any]]:
        return [row for row in ood if any(word in row["group"] for word in words)]

    model = report["model"]
    scale = f", {model['scale']}" if "scale" in model else ""
    return [
        f"{model['model_type']}{scale}",
        f"{report['parameters'] / 1e6:.2f} M",
        f"{report['training']['images']:,}",
        f"{report['training']['seconds'] / 60:.0f}",
        f"{report['likelihood']['bits_per_dim']:.3f}",
        exact([rows["test", "fp32"]]),
        exact(ood),
        largest([rows["test", "fp32"]]),
        largest(named(*PHOTOGRAPHS, "photographs")),
        largest(named("noise")),
        largest(named("checkerboard")),
        largest([row for (_, precision), row in rows.items() if precision == "fp64"]),
    ]


SAMPLE_COLUMNS = (
    "checkpoint",
    "parameters",
    "images",
    "minutes",
    "MB",
    "kid2k_effnetlite0_t1",
    "bits/dim",
    "reconstruction, dB",
)


def sample_line(folder: Path) -> list[str]:
    """Row of the table of samples, for flows, GANs and LIA."""
    report: dict[str, Any] = json.loads((folder / "report.json").read_text())
    training, likelihood = report["training"], report.get("likelihood")
    if likelihood:
        quality = "∞"
    elif "reconstruction" in report:
        quality = f"{report['reconstruction']['psnr_median']:.1f}"
    else:
        quality = "no encoder"
    return [
        f"[{folder.name}]({folder})",
        f"{report['parameters'] / 1e6:.2f} M",
        f"{training['images']:,}",
        f"{training['seconds'] / 60:.0f}",
        f"{(folder / 'model.safetensors').stat().st_size / 2**20:.1f}",
        f"{report['kid']['metrics']['kid2k_effnetlite0_t1']:.1f}",
        f"{likelihood['bits_per_dim']:.3f}" if likelihood else "–",
        quality,
    ]


UNIT_CLASSES = ("window", "door", "lamp", "plant", "tree", "banner")
UNIT_COLUMNS = ("checkpoint", "interpretable units", *UNIT_CLASSES)


def units_line(folder: Path) -> list[str]:
    """Row of the table of units: best IoU of every class, and share of its pixels that ablation removes."""
    result: dict[str, Any] = json.loads((folder / "units.json").read_text())
    layers = result["layers"].values()
    interpretable, units = (sum(layer[key] for layer in layers) for key in ("interpretable", "units"))
    removed = {each["label"]: each for each in result["ablations"]}
    row = [Path(result["checkpoint"]).name, f"{interpretable} of {units}"]
    for label in UNIT_CLASSES:
        cell = f"{result['best'][label]['iou']:.2f}" if label in result["best"] else "–"
        if label in removed:
            ablation = removed[label]
            cell += f"; −{100 * ablation['removed'][-1]:.0f} % ({100 * ablation['random'][-1]:.0f})"
        row.append(cell)
    return row


def main() -> None:
    """Print a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--samples", action="store_true", help="table of samples, for flows, GANs and LIA")
    parser.add_argument("--units", action="store_true", help="table of units, from folders of flows dissect")
    given = parser.parse_args()
    columns, line_of, folders = COLUMNS, line, given.folders
    if given.samples:
        columns, line_of = SAMPLE_COLUMNS, sample_line
        folders = [each for each in folders if "kid" in json.loads((each / "report.json").read_text())]
    elif given.units:
        columns, line_of = UNIT_COLUMNS, units_line
    print(Table(columns, [line_of(folder) for folder in folders]).markdown(), end="")


if __name__ == "__main__":
    main()
