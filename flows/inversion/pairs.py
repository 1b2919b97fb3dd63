"""Finished pairs of a comparison on disk, so that an interrupted comparison can be continued."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from flows.core.schema import parse, read_json, unaltered
from flows.errors import CheckpointError
from flows.inversion.comparison import Group, Result, Row
from flows.inversion.edits import Edited, EditFigures
from flows.inversion.records import load_record, save_record
from flows.models.base import LatentModel
from flows.storage.files import shorten
from flows.storage.tensor_files import save_tensors
from flows.storage.versioned import read_versioned

PAIR_VERSION = 1
PARTS = ("rows", "target", "images", "undone")
"""Tensors of an edit."""
LONGEST = 160
"""Maximum length of the name of a pair in file names; longer ones end with a digest."""


@dataclass(frozen=True)
class Header:
    """Plain values of a finished pair; `key` is a digest of everything that determines it."""

    key: str
    row: Row
    each_psnr: list[float]
    edits: list[EditFigures] = field(default_factory=list)


class Pairs:
    """Files of finished pairs: figures and reconstructions in `pairs/`, codes in `records/`.

    Args:
        folder: Folder of the comparison.
        settings: Plain values that determine the results besides models, images and names.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]):
        self.folder, self.settings = folder, dict(settings)
        self._fingerprints: dict[str, str] = {}

    def clear(self) -> None:
        """Remove all files of pairs, which an earlier comparison in this folder wrote."""
        self.keep_only([])

    def keep_only(self, results: list[Result]) -> None:
        """Remove the files of pairs that are not among the results."""
        names = {f"{pair_name(result.row)}.safetensors" for result in results}
        for path in (*self.folder.glob("pairs/*.safetensors"), *self.folder.glob("records/*.safetensors")):
            if path.name not in names:
                path.unlink()

    def save(self, result: Result, model: LatentModel, group: Group) -> None:
        """Write a finished pair with its record; pairs without figures are not written."""
        if result.row.note:
            return
        name = f"{pair_name(result.row)}.safetensors"
        if result.record is not None:
            save_record(self.folder / "records" / name, result.record, model)
        header = {
            "key": self._key(result.row, model, group),
            "row": result.row.as_dict(),
            "each_psnr": result.each_psnr,
            "edits": [asdict(edit.figures) for edit in result.edits],
        }
        metadata = {"pair_version": str(PAIR_VERSION), "pair": json.dumps(header)}
        tensors = {"reconstruction": result.reconstruction.contiguous()}
        for i, edit in enumerate(result.edits):
            parts = {part: getattr(edit, part).contiguous() for part in PARTS}
            tensors |= {f"edits.{i}.{part}": value for part, value in parts.items()}
        save_tensors(self.folder / "pairs" / name, tensors, metadata)

    def load(self, row: Row, model: LatentModel, group: Group) -> Result | None:
        """Read a pair that was finished with the same settings, model and images; None if there is none.

        Args:
            row: Row with the names.
            model: Model of the pair.
            group: Images of the pair.
        """
        name = f"{pair_name(row)}.safetensors"
        path = self.folder / "pairs" / name
        if not path.is_file():
            return None
        metadata, tensors = read_versioned(path, "finished pair", "pair", PAIR_VERSION, "flows compare")
        with unaltered(path):
            header = parse(Header, read_json(metadata.get("pair", "")))
            reconstruction = parse(Tensor, tensors.get("reconstruction"), "reconstruction")
            edits = [
                Edited(
                    figures,
                    **{part: parse(Tensor, tensors.get(f"edits.{i}.{part}"), part) for part in PARTS},
                )
                for i, figures in enumerate(header.edits)
            ]
        if header.key != self._key(row, model, group):
            return None
        if reconstruction.shape != group.images.shape or len(header.each_psnr) != len(group.images):
            raise CheckpointError(f"{path} was altered or cut off: it has other images")
        record = self.folder / "records" / name
        loaded = load_record(record, model) if record.is_file() else None
        return Result(header.row, reconstruction, header.each_psnr, loaded, edits)

    def _key(self, row: Row, model: LatentModel, group: Group) -> str:
        """Digest of all that determines a pair."""
        if row.model not in self._fingerprints:
            self._fingerprints[row.model] = model.fingerprint()
        digest = hashlib.sha256(group.images.contiguous().numpy().tobytes())
        labels = None if group.labels is None else group.labels.tolist()
        names = [row.model, row.inverter, row.group, self._fingerprints[row.model]]
        digest.update(json.dumps([names, labels, self.settings], sort_keys=True).encode())
        return digest.hexdigest()


def pair_name(row: Row) -> str:
    """Name of a pair in file names, safe and of limited length."""
    return safe_name(f"{row.model}-{row.inverter}-{row.group}")


def safe_name(text: str) -> str:
    """Replace characters that are not safe in a file name by hyphens; a long name ends with a digest."""
    safe = "".join(letter if letter.isalnum() or letter in "-+." else "-" for letter in text)
    cut = shorten(safe, LONGEST)
    return safe if cut == safe else f"{cut}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
