"""Tables of shipped models, from the reports of `train.py` and `flows dissect`.

python benchmarks/table.py checkpoints/fashion-nice checkpoints/fashion-realnvp checkpoints/fashion-glow
python benchmarks/table.py --samples checkpoints/scenes*
python benchmarks/table.py --units runs/*-dissection      # folders of flows dissect

Writes flows-fashion.json, models.json or units.json in docs/results. Rows of flows whose runs are gone are
kept. The day of a file stays while its reports say the same.
"""

import json
from collections.abc import Callable
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

from saving import MODELS, Build, in_words, model_name, new_parser, publish

from flows.display.results import Made, Result, Shown

PHOTOGRAPHS = ("cat", "person", "coffee", "rocket", "galaxies", "temple", "flower")
Report = dict[str, Any]


def report_of(folder: Path, names: tuple[str, ...]) -> Report:
    """Parts of the report of a checkpoint."""
    report = json.loads((folder / "report.json").read_text())
    return {name: report[name] for name in names if name in report}


# Flows --------------------------------------------------------------------------------------------


def flow(folder: Path) -> Report:
    """Figures of a flow: likelihood and round trips."""
    report = report_of(folder, ("model", "parameters", "training", "likelihood", "roundtrip"))
    for row in report["roundtrip"]:
        row.pop("level_error", None)
    return report


def flow_row(report: Report) -> list[str]:
    """Row of the table of flows."""
    rows = {(row["group"], row["precision"]): row for row in report["roundtrip"]}
    single = [row for (_, precision), row in rows.items() if precision == "fp32"]
    ood = [row for row in single if row["group"] != "test"]

    def exact(chosen: list[dict[str, Any]]) -> str:
        count = sum(round(row["bit_exact"] * row["images"]) for row in chosen)
        return f"{count:,} / {sum(row['images'] for row in chosen):,}"

    def largest(chosen: list[dict[str, Any]]) -> str:
        if not all(row["finite"] for row in chosen):
            return "not finite"
        return f"{max(row['max_error'] for row in chosen):.0e}"

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


def flows_result(data: dict[str, Report], made: Made) -> Result:
    """Table of flows: likelihood and round trips."""
    columns = [
        "model", "parameters", "images", "minutes", "test bits/dim", "test images exact", "OOD images exact",
        "largest error, test", "photographs", "noise", "checkerboards", "fp64",
    ]  # fmt: skip
    table = Shown(columns, [flow_row(report) for report in data.values()], names=[0])
    text = (
        "Fashion-MNIST, zero-padded to 32×32, the 10,000 test images, uniform dequantisation, trained on one "
        "core. `exact` is plain fp32."
    )
    return Result("Flows on Fashion-MNIST", made, {"table": table}, text, data=data)


# Samples ------------------------------------------------------------------------------------------


def sampled(folder: Path) -> Report | None:
    """Figures of a model whose samples were compared with images; None for another one."""
    report = report_of(folder, ("parameters", "training", "likelihood", "reconstruction", "kid"))
    if "kid" not in report:
        return None
    return {**report, "bytes": (folder / "model.safetensors").stat().st_size}


def sample_row(name: str, report: Report) -> list[str]:
    """Row of the table of samples, for flows, GANs and LIA."""
    training, likelihood = report["training"], report.get("likelihood")
    if likelihood:
        quality = "∞"
    elif "reconstruction" in report:
        quality = f"{report['reconstruction']['psnr_median']:.1f}"
    else:
        quality = "no encoder"
    return [
        name,
        f"{report['parameters'] / 1e6:.2f} M",
        f"{training['images']:,}",
        f"{training['seconds'] / 60:.0f}",
        f"{report['bytes'] / 2**20:.1f}",
        f"{report['kid']['metrics']['kid2k_effnetlite0_t1']:.1f}",
        f"{likelihood['bits_per_dim']:.3f}" if likelihood else "–",
        quality,
    ]


def samples_result(data: dict[str, Report], made: Made) -> Result:
    """Table of samples."""
    columns = [
        "checkpoint", "parameters", "images", "minutes", "MB", "kid2k_effnetlite0_t1", "bits/dim",
        "reconstruction, dB",
    ]  # fmt: skip
    rows = [sample_row(name, report) for name, report in data.items()]
    halves = [f"{each['kid']['metrics']['kid2k_effnetlite0_halves']:.3f}" for each in data.values()]
    text = (
        "KID to test images by EfficientNet-Lite0, 2,000 images at temperature 1; two halves of the test "
        f"images are at {' or '.join(dict.fromkeys(halves))}, by their size. scenes64-lia began as "
        "scenes-lia; its minutes come on top."
    )
    return Result("Models of scenes", made, {"samples": Shown(columns, rows, names=[0])}, text, data=data)


# Units --------------------------------------------------------------------------------------------

UNIT_CLASSES = ("window", "door", "lamp", "plant", "tree", "banner")
UNIT_MODELS = ("dcgan", "pggan", "stylegan", "biggan", "lia", "glow", "realnvp")
"""Models in the order of the table of units: GANs, then those with an encoder."""
KINDS = {"code": "code", "hidden": "hidden states", "network": "{count} layers of coupling networks", "": ""}
"""Kinds of layers, and their names after that of the model."""
Layers = dict[str, dict[str, int]]


def dissected(folder: Path) -> Report:
    """Figures of a dissection, without the single units."""
    found = json.loads((folder / "units.json").read_text())
    names = ("checkpoint", "segmenter", "source", "n", "space", "scheme", "share", "seed", "rules", "layers")
    return {**{name: found[name] for name in names}, "best": found["best"]}


def kind_of(layer: str) -> str:
    """Kind of a layer, a key of `KINDS`."""
    if layer.startswith("code/"):
        return "code"
    return "hidden" if ".taps." in layer else "network" if ".network." in layer else ""


def counts(layers: Layers) -> str:
    """Interpretable units of layers and their numbers of units, with layers of one size together."""

    def of(layer: tuple[str, dict[str, int]]) -> tuple[str, int]:
        return ("with attention " if "attention" in layer[0] else "", layer[1]["units"])

    parts = []
    for (prefix, units), group in groupby(layers.items(), of):
        *others, last = (str(layer["interpretable"]) for _, layer in group)
        parts.append(f"{prefix}{', '.join(others)}{' and ' if others else ''}{last} of {units}")
    return ", ".join(parts)


def unit_rows(report: Report) -> list[list[str]]:
    """Rows of one model, one per kind of layers; the last has the IoU of the best units."""
    name = model_name(Path(report["checkpoint"]).name)
    rows = []
    for kind, text in KINDS.items():
        layers = {layer: each for layer, each in report["layers"].items() if kind_of(layer) == kind}
        if not layers:
            continue
        if kind == "code":  # its levels are parts of one code
            keys = ("units", "interpretable", "interpretable_by_iou")
            layers = {"code": {key: sum(each[key] for each in layers.values()) for key in keys}}
        label = f"{name}, {text.format(count=in_words(len(layers)))}" if text else name
        by_iou = ", ".join(str(each["interpretable_by_iou"]) for each in layers.values())
        rows.append([label, counts(layers), by_iou, *[""] * len(UNIT_CLASSES)])
    best = report["best"]
    rows[-1][3:] = [f"{best[label]['iou']:.2f}" if label in best else "–" for label in UNIT_CLASSES]
    return rows


def units_result(data: dict[str, Report], made: Made) -> Result:
    """Table of the units that agree with classes."""
    order = {MODELS[part]: place for place, part in enumerate(UNIT_MODELS)}
    reports = sorted(
        data.values(), key=lambda each: order.get(model_name(Path(each["checkpoint"]).name), len(order))
    )
    columns = ["model", "interpretable units per layer", "by IoU", *UNIT_CLASSES]
    table = Shown(columns, [row for report in reports for row in unit_rows(report)])
    text = (
        "Interpretable units per layer by the released rule of GAN dissection, out of all units of the "
        "layer, with the outermost layer last; the numbers by IoU beside them; and, for each class, the IoU "
        "of the best unit of all layers."
    )
    return Result("Units that agree with classes", made, {"table": table}, text, data=data)


def read(folders: list[Path], figures: Callable[[Path], Report | None]) -> dict[str, Report]:
    """Figures of all folders that have them, by their names."""
    found = {folder.name: figures(folder) for folder in folders}
    return {name: each for name, each in found.items() if each is not None}


def main() -> None:
    """Read the reports; write the JSON file of one of the tables and print it."""
    parser = new_parser(__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--samples", action="store_true", help="table of samples, for flows, GANs and LIA")
    parser.add_argument("--units", action="store_true", help="table of units, from folders of flows dissect")
    given = parser.parse_args()
    if not given.folders and not given.again:
        parser.error("folders: expected folders of checkpoints or of flows dissect")
    tables: dict[str, tuple[Build, Callable[[Path], Report | None]]] = {
        "flows-fashion": (flows_result, flow),
        "models": (samples_result, sampled),
        "units": (units_result, dissected),
    }
    name = "units" if given.units else "models" if given.samples else "flows-fashion"
    build, figures = tables[name]
    rows_of = ("table",) if name == "flows-fashion" else ()
    publish(given, name, build, partial(read, given.folders, figures), rows_of, read=True)


if __name__ == "__main__":
    main()
