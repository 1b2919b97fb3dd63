"""Model cards and the facts that every report of a run has."""

from pathlib import Path
from typing import Any

import torch

import flows.models
import flows.semantics
from flows import __version__
from flows.core.hardware import hardware
from flows.data.base import ImageData
from flows.storage.stored import StoredModule, types_in
from flows.training.data_record import read_record
from flows.training.log import check_trained

OPTIMISERS = {"adam": "Adam", "adamax": "Adamax", "adamw": "AdamW", "rmsprop": "RMSprop"}
"""Names of the optimisers in model cards."""


LOADER = ("import flows", 'model = flows.load("path/to/this/folder")')
"""Lines of Python that load a model."""


def loader_of(model: StoredModule, lines: tuple[str, str] = LOADER) -> tuple[str, str]:
    """Lines of Python that load a model; they pass a class that neither flows nor a plugin has."""
    name = type(model).__name__
    known = {**types_in(flows.models, StoredModule), **types_in(flows.semantics, StoredModule)}
    return lines if known.get(name) is type(model) else (lines[0], f"{lines[1][:-1]}, classes=[{name}])")


def facts_of(
    model: StoredModule, metrics: list[dict[str, float]], data: ImageData, folder: Path
) -> dict[str, Any]:
    """Entries of every report: model, data, and training. Raises UserError if there are no metrics.

    Args:
        model: Model on the device of the training.
        metrics: Lines of the log.
        data: Data set that the model was trained on.
        folder: Folder of the run, with the record of its data.
    """
    check_trained(metrics)
    note = data.test_note()
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    ranks = torch.distributed.get_world_size() if distributed else 1
    record = (read_record(folder) or {}).get("train")
    return {
        **({"test_note": note} if note else {}),
        "model": model.arguments(),
        "fingerprint": model.fingerprint(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "data": model.description,
        "training": {
            "images": int(metrics[-1]["images"]),
            "split_images": None if record is None else record.images or None,  # a stream has no number
            "seconds": max(line.get("seconds", 0.0) for line in metrics),
            "hardware": hardware(model.device, ranks),
            "flows": __version__,
            "torch": torch.__version__,
        },
    }


def test_note(report: dict[str, Any]) -> list[str]:
    """Sentence on figures of the test split that say nothing, if there is a reason."""
    return [f"test figures mean nothing: {report['test_note']}"] if "test_note" in report else []


def best_at(report: dict[str, Any]) -> str:
    """Phrase of a model card on when the exported weights were reached; empty for older reports."""
    images = report["training"].get("best_images")
    return "" if images is None else f", those after {images:,} images"


def training_paragraph(report: dict[str, Any], config: dict[str, Any], more: str = "") -> list[str]:
    """Lines of a model card: images shown, duration, the main settings, and further sentences.

    Args:
        report: Contents of report.json.
        config: Contents of config.yaml; empty if the run has none.
        more: Further sentences, with a space at the end.
    """
    training = report["training"]
    note = [f"Test figures mean nothing: {report['test_note']}.", ""] if "test_note" in report else []
    settings = f"{_settings(config)}. {more}{_where(config)}".rstrip()
    return [
        *note,
        "## Training",
        "",
        f"{training['images']:,} images in {training['seconds'] / 60:.0f} minutes (flows "
        f"{training['flows']}, torch {training['torch']}){settings}",
        "",
    ]


def _settings(config: dict[str, Any]) -> str:
    """Phrase with the main settings of a run; empty if they are not known."""
    if not config:
        return ""
    settings = config["training"]
    decay = "constant" if settings["decay"] == "constant" else f"{settings['decay']} decay"
    return (
        f": batch {settings['batch']}, {OPTIMISERS[settings['optimiser']]} with learning rate "
        f"{settings['lr']}, {decay}, EMA {settings['ema']}, seed {settings['seed']}"
    )


def _where(config: dict[str, Any]) -> str:
    return "`config.yaml` contains all settings." if config else ""


def card_head(
    report: dict[str, Any], tag: str, sentences: str, loader: tuple[str, str] = LOADER
) -> list[str]:
    """First lines of a model card in the hub's format: tags, title, size of the model, and how to load it.

    Args:
        report: Contents of report.json.
        tag: Tag of the kind of model on the hub; empty for a model that generates nothing.
        sentences: Sentences on the size of the model and the pixels.
        loader: Lines of Python: the import, and the call.
    """
    name, data = report["model"]["model_type"], report["data"]
    kind = ["pipeline_tag: unconditional-image-generation"] if tag else []
    return [
        "---",
        "library_name: flows",
        *kind,
        f"tags: [{f'{tag}, ' if tag else ''}{name.lower()}]",
        "---",
        "",
        f"# {name} on {data['name']}",
        "",
        sentences,
        "",
        "```python",
        loader[0],
        "",
        loader[1],
        "```",
        "",
    ]
