"""Writing of the index of models: `python -m flows.reports.index [FOLDER …]`.

Without folders the entries of the index are made anew from their folders. Each entry is what `config.json`
and `report.json` of its folder say, with the digests of its files.
"""

import argparse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import flows.models
import flows.semantics
from flows.core.schema import parse, read_json, unaltered
from flows.errors import UserError, program
from flows.models.base import LatentModel, LikelihoodModel
from flows.opening import METHODS
from flows.storage.files import file_digest
from flows.storage.index import CONFIG_FILE, INDEX_FILE, Entry, Kind, StoredFile, read_index, write_index
from flows.storage.package import packaged
from flows.storage.stored import CARD_FILE, StoredModule, read_config, types_in
from flows.storage.trained import REPORT_FILE

LICENCE = "Apache-2.0"


def entry_of(folder: Path, licence: str = LICENCE, url: str = "") -> Entry:
    """Entry of a model in a folder that `train.py` wrote.

    Args:
        folder: Folder with config, weights, card and report.
        licence: SPDX identifier of the licence of the weights.
        url: Address below which the files are published.

    Raises:
        CheckpointError: A file is missing or altered.
        UserError: The class of the model is unknown.
    """
    config = read_config(folder / CONFIG_FILE)
    with unaltered(folder / REPORT_FILE):
        report: dict[str, Any] = parse(dict[str, Any], read_json((folder / REPORT_FILE).read_bytes()))
    paths = [folder / CONFIG_FILE, folder / CARD_FILE, *sorted(folder.glob("*.safetensors"))]
    return Entry(
        model_type=config["model_type"],
        kind=kind_of(config["model_type"]),
        image_shape=parse(tuple[int, int, int], config["image_shape"]),
        data=config["description"]["name"],
        parameters=report["parameters"],
        licence=licence,
        figures=figures_of(report),
        files={path.name: StoredFile(path.stat().st_size, file_digest(path)) for path in paths},
        url=url,
    )


def kind_of(model_type: str) -> Kind:
    """Kind of a class of models; raises UserError if there is none of this name."""
    known = {**types_in(flows.models, StoredModule), **types_in(flows.semantics, StoredModule)}
    if model_type not in known:
        raise UserError(
            f"there is no class {model_type} in flows, expected one of {', '.join(sorted(known))}"
        )
    cls = known[model_type]
    for kind, method in METHODS.items():
        if hasattr(cls, method):
            return kind
    if issubclass(cls, LikelihoodModel):
        return "flow"
    return "autoencoder" if issubclass(cls, LatentModel) and "encode" in vars(cls) else "generator"


def figures_of(report: Mapping[str, Any]) -> dict[str, float]:
    """Main figures of a report: bits/dim, KID, PSNR of reconstructions, mean quality of a semantic model."""
    figures = {}
    if likelihood := report.get("likelihood"):
        figures["bits/dim"] = likelihood["bits_per_dim"]
    for name, value in report.get("kid", {}).get("metrics", {}).items():
        if "halves" not in name:
            figures["KID"] = value
    if reconstruction := report.get("reconstruction"):
        figures["PSNR (dB)"] = reconstruction["psnr_median"]
    for name, key in (("accuracy", "accuracy"), ("R²", "r2"), ("IoU", "iou")):
        values = [quality[key] for quality in report.get("test", {}).values() if quality.get(key) is not None]
        if values:
            figures[f"mean {name}" if len(values) > 1 else name] = mean(values)
    return {name: round(float(value), 6) for name, value in figures.items()}


def made_anew(
    entries: Mapping[str, Entry], folders: Iterable[Path], place: Path, note: Callable[[str], object] = print
) -> dict[str, Entry]:
    """Entries of the index and of further folders, made from their folders in `place`.

    An entry whose folder is gone is left out, which `note` says.
    """
    found = {}
    for name in {**entries, **{folder.name: None for folder in folders}}:
        before = entries.get(name)
        if not (place / name / CONFIG_FILE).is_file():
            note(f"{name} is left out: there is no folder {place / name}")
            continue
        made = entry_of(place / name, *(() if before is None else (before.licence,)))
        # What is published is another model, once a file differs.
        same = before is not None and before.files == made.files
        found[name] = replace(made, url=before.url) if before is not None and same else made
    return found


def main() -> None:
    """Write the index of the clone."""
    parser = argparse.ArgumentParser(prog="python -m flows.reports.index", description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders of models to add, in checkpoints/")
    place = packaged("checkpoints")
    entries = made_anew(read_index(), parser.parse_args().folders, place)
    write_index(entries, place / INDEX_FILE)
    print(f"{place / INDEX_FILE}: {len(entries)} models")


if __name__ == "__main__":
    with program():
        main()
