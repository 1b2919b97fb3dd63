"""Log of a run: metrics.jsonl (strict JSON), TensorBoard, and a progress bar."""

import json
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from flows import images as pixels
from flows.core.schema import parse, read_json, unaltered
from flows.display.progress import bar
from flows.errors import UserError
from flows.storage.files import REASON, strict, write_atomically, write_text
from flows.storage.trained import METRICS_FILE


class RunLog:
    """Log of a run, written by the main process; on other ranks every call does nothing.

    Args:
        folder: Folder of the run.
        total: Number of images of the whole run.
        start: Number of images shown before this session. Later lines of an interrupted session are removed
            from the files, so that the log of a resumed run equals that of an uninterrupted one.
        lines: Maximum number of lines that are kept.
        active: Whether this is the main process.

    Attributes:
        lines: Number of lines so far.
    """

    def __init__(
        self, folder: Path, total: int, start: int = 0, lines: int = sys.maxsize, active: bool = True
    ):
        self.active, self.lines = active, 0
        if not active:
            return
        self.path = folder / METRICS_FILE
        kept = _lines_until(self.path, start)[:lines] if start else []
        self.lines = len(kept)
        write_text(self.path, "".join(kept))
        self.file = open(self.path, "a")
        from torch.utils.tensorboard import SummaryWriter  # importing takes a tenth of a second

        self.writer = SummaryWriter(str(folder / "logs"), purge_step=start + 1 if start else None)
        self.bar = bar(
            total=total, initial=start, unit="img", unit_scale=True, smoothing=0.05, mininterval=1.0
        )
        self.folder = folder

    def scalars(
        self, images: int, values: Mapping[str, float], unknown: Mapping[str, str] | None = None
    ) -> None:
        """Write one line of metrics.jsonl and one point per value to TensorBoard.

        Values that are not finite are null, with the reason beside them; see `flows.storage.files.to_json`.
        """
        if not self.active:
            return
        line = strict({"images": images, "time": round(time.time(), 3), **values}, unknown)
        self.file.write(json.dumps(line, allow_nan=False) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        self.lines += 1
        for name, value in values.items():
            if math.isfinite(value):
                self.writer.add_scalar(name, value, images)

    def picture(self, images: int, name: str, sheet: Tensor) -> None:
        """Write a uint8 sheet (C, H, W) to TensorBoard and to `samples/<name>-<images>.png`."""
        if not self.active:
            return
        self.writer.add_image(name, sheet, images)
        path = self.folder / "samples" / f"{name}-{images:09d}.png"
        write_atomically(path, lambda target: pixels.to_pillow(sheet).save(target))

    def advance(self, images: int, **shown: str) -> None:
        """Advance the progress bar by a number of images."""
        if self.active:
            self.bar.update(images)
            if shown:
                self.bar.set_postfix(shown, refresh=False)

    def say(self, text: str) -> None:
        """Print a line above the progress bar."""
        if self.active:
            self.bar.write(text)

    def close(self) -> None:
        """Close the progress bar, the TensorBoard writer and the file."""
        if self.active:
            self.bar.close()
            self.writer.close()
            self.file.close()


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Read the lines of a metrics.jsonl; an incomplete last line, as after a kill, is skipped.

    Values that are null are NaN; the reasons beside them are left out.
    """
    read = []
    with unaltered(path):
        for i, text in enumerate(_whole_lines(path)):
            line = parse(dict[str, Any], read_json(text))
            parse(float, line.get("images"), f"line {i + 1}: images")
            figures = {name: value for name, value in line.items() if not name.endswith(REASON)}
            read.append({name: math.nan if value is None else value for name, value in figures.items()})
    return read


def _lines_until(path: Path, images: int) -> list[str]:
    """Lines of a metrics.jsonl, as they are, up to a number of images."""
    pairs = zip(read_metrics(path), _whole_lines(path), strict=True)
    return [f"{text}\n" for line, text in pairs if line["images"] <= images]


def _whole_lines(path: Path) -> list[str]:
    lines = path.read_text().split("\n")[:-1] if path.is_file() else []
    return [line for line in lines if line]


def check_trained(metrics: Sequence[Mapping[str, float]]) -> None:
    """Raise UserError if a run has no metrics, so that there is nothing to report."""
    if not metrics:
        raise UserError(f"{METRICS_FILE} has no lines: expected the folder of a run that has trained")
