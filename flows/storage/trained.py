"""Facts of the training of a model, as far as the files of its checkpoint record them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.core.schema import parse, read_json, unaltered
from flows.errors import CheckpointError
from flows.storage.files import StrPath
from flows.storage.places import from_hub, hub_repository, locate
from flows.storage.stored import CARD_FILE

REPORT_FILE, METRICS_FILE, DATA_RECORD = "report.json", "metrics.jsonl", "data.json"
CARD_SENTENCE = re.compile(r"^([\d,]+) images in ([\d,]+) minutes \(flows ", re.M)
"""Sentence of a model card on the training; see `reports.card.training_paragraph`."""


@dataclass(frozen=True, kw_only=True)
class TrainingFacts:
    """Facts of a training; None where nothing records one.

    Attributes:
        images: Number of images that were shown to the model, over all epochs.
        split_images: Number of images in the training split.
        seconds: Duration of the training, seconds.
        hardware: Name of the accelerators or the processor.
    """

    images: int | None = None
    split_images: int | None = None
    seconds: float | None = None
    hardware: str | None = None


def read_training(checkpoint: StrPath) -> TrainingFacts:
    """Read the facts of a training from the report of a checkpoint, its log, its data record and its card.

    A later file fills in what the earlier ones lack. A published model has its card alone.

    Args:
        checkpoint: Folder or name of the checkpoint.

    Raises:
        CheckpointError: A file was altered or cut off.
    """
    found = TrainingFacts()
    for name, read in READERS.items():
        path = _file(checkpoint, name)
        if path is None:
            continue
        with unaltered(path):
            facts = read(path.read_text(encoding="utf-8", errors="replace"))
        missing = [key for key, value in vars(found).items() if value is None]
        found = replace(found, **{key: getattr(facts, key) for key in missing})
    return found


def _file(checkpoint: StrPath, name: str) -> Path | None:
    """Path of a file of a checkpoint, or None; of a hub repository only the card is fetched."""
    place = locate(checkpoint)
    if repository := hub_repository(place):
        try:
            return from_hub(repository, name) if name == CARD_FILE else None
        except CheckpointError:  # it has no card, or the hub does not answer
            return None
    path = Path(place) / name
    return path if path.is_file() else None


def of_report(text: str) -> TrainingFacts:
    """Facts in a report.json."""
    report = parse(dict[str, Any], read_json(text))
    training = parse(dict[str, Any], report.get("training", {}), "training")

    def fact(name: str, kind: Any) -> Any:
        return parse(kind | None, training.get(name), f"training.{name}")

    return TrainingFacts(
        images=fact("images", int),
        split_images=fact("split_images", int),
        seconds=fact("seconds", float),
        hardware=fact("hardware", str),
    )


def of_metrics(text: str) -> TrainingFacts:
    """Facts in a metrics.jsonl, of a run that has no report yet; an incomplete last line is left out."""
    lines = [parse(dict[str, Any], read_json(line)) for line in text.split("\n")[:-1] if line]
    images = [parse(int, line.get("images"), "images") for line in lines]
    seconds = [parse(float, line["seconds"], "seconds") for line in lines if line.get("seconds") is not None]
    return TrainingFacts(images=max(images, default=None), seconds=max(seconds, default=None))


def of_data_record(text: str) -> TrainingFacts:
    """Facts in the data.json of a run; a stream has no number of images."""
    record = parse(dict[str, dict[str, Any]], read_json(text))
    images = parse(int, record.get("train", {}).get("images", 0), "train.images")
    return TrainingFacts(split_images=images or None)


def of_card(text: str) -> TrainingFacts:
    """Facts in a model card that a report wrote; its duration is in whole minutes."""
    stated = CARD_SENTENCE.search(text)
    if stated is None:
        return TrainingFacts()
    images, minutes = (int(number.replace(",", "")) for number in stated.groups())
    return TrainingFacts(images=images, seconds=60.0 * minutes)


READERS: dict[str, Callable[[str], TrainingFacts]] = {
    REPORT_FILE: of_report,
    METRICS_FILE: of_metrics,
    DATA_RECORD: of_data_record,
    CARD_FILE: of_card,
}
"""Readers of the files, the most exact one first."""
