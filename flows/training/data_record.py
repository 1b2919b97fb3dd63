"""Record of the data of a run: what came and went is said when the run is resumed."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from flows.core.schema import parse, read_json
from flows.data.base import ImageData, Split, SplitName
from flows.errors import UserError
from flows.storage.files import write_text
from flows.storage.trained import DATA_RECORD

MOST_NAMES = 200_000
"""Number of pictures above which their names are not kept; that the data differ is noticed all the same."""
SHOWN = 3


@dataclass(frozen=True)
class SplitRecord:
    """Contents of a split.

    Attributes:
        images: Number of images.
        digest: SHA-256 of what identifies the images, or "" if only their number is known.
        names: Names of the files, or None if they have none or are too many.
    """

    images: int
    digest: str
    names: list[str] | None = None


Record = Mapping[str, SplitRecord]


def record_of(data: ImageData, opened: Mapping[SplitName, Split] | None = None) -> dict[str, SplitRecord]:
    """Record of the splits of a data set, which are opened unless they are given."""
    record: dict[str, SplitRecord] = {}
    for name, split in (data.opened() if opened is None else opened).items():
        names = None if split.names is None or len(split) > MOST_NAMES else list(split.names)
        record[name] = SplitRecord(len(split), split.digest(), names)
    if digest := data.stream_digest():
        record["train"] = SplitRecord(0, digest)
    return record


def write_record(folder: Path, record: Record) -> None:
    """Write the record to the folder of a run."""
    text = json.dumps({name: asdict(split) for name, split in record.items()}) + "\n"
    write_text(folder / DATA_RECORD, text)


def read_record(folder: Path) -> dict[str, SplitRecord] | None:
    """Read the record of a run; None if it has none, or one that is damaged: it is for information."""
    path = folder / DATA_RECORD
    try:
        record: dict[str, SplitRecord] = parse(dict[str, SplitRecord], read_json(path.read_bytes()))
    except (UserError, FileNotFoundError):
        return None
    return record


def changes(before: Record, now: Record) -> list[str]:
    """Sentences on what differs between two records."""
    if all(before.get(name) == split for name, split in now.items()):
        return []
    old, new = _places(before), _places(now)
    said = []
    if old is not None and new is not None:
        said += _listed("came", sorted(new.keys() - old.keys()))
        said += _listed("went", sorted(old.keys() - new.keys()))
        moved = sorted(name for name in old.keys() & new.keys() if old[name] != new[name])
        said += [f"{name} is in {new[name]}, was in {old[name]}" for name in moved[:SHOWN]]
        said += [f"{len(moved) - SHOWN:,} others are in another split"] if len(moved) > SHOWN else []
    if not said:
        for name, split in now.items():
            was = before.get(name)
            if was is None or was.images != split.images:
                said.append(f"{split.images:,} {name} images, were {0 if was is None else was.images:,}")
            elif was.digest != split.digest:
                said.append(f"the {name} images are others")
    return [
        f"the data are not those of the run so far: {'; '.join(said)}",
        "so the order of the training images is another, and validation figures compare only if its images "
        "are the same",
    ]


def _places(record: Record) -> dict[str, str] | None:
    """Split of every picture by its name, or None if names are not known."""
    places: dict[str, str] = {}
    for name, split in record.items():
        if split.names is None:
            return None
        places |= dict.fromkeys(split.names, name)
    return places


def _listed(verb: str, names: list[str]) -> list[str]:
    if not names:
        return []
    more = ", …" if len(names) > SHOWN else ""
    pictures = "1 picture" if len(names) == 1 else f"{len(names):,} pictures"
    return [f"{pictures} {verb} ({', '.join(names[:SHOWN])}{more})"]
