"""Log of a run: metrics.jsonl, TensorBoard, and a progress bar."""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from flows import images as pixels
from flows.errors import UserError
from flows.files import write_atomically
from flows.schema import parse, read_json, unaltered

METRICS_FILE = "metrics.jsonl"


class RunLog:
    """Log of a run, written by the main process; on other ranks every call does nothing.

    Args:
        folder: Folder of the run.
        total: Number of images of the whole run.
        start: Number of images shown before this session. Later lines of an interrupted session are removed
            from the files, so that the log of a resumed run equals that of an uninterrupted one.
        active: Whether this is the main process.
    """

    def __init__(self, folder: Path, total: int, start: int = 0, active: bool = True):
        self.active = active
        if not active:
            return
        self.path = folder / METRICS_FILE
        kept = [line for line in read_metrics(self.path) if line["images"] <= start] if start else []
        text = "".join(json.dumps(line) + "\n" for line in kept)
        write_atomically(self.path, lambda path: path.write_text(text))
        self.file = open(self.path, "a")
        from torch.utils.tensorboard import SummaryWriter  # importing takes a tenth of a second

        self.writer = SummaryWriter(str(folder / "logs"), purge_step=start + 1 if start else None)
        self.bar = tqdm(
            total=total, initial=start, unit="img", unit_scale=True, smoothing=0.05, mininterval=1.0
        )
        self.folder = folder

    def scalars(self, images: int, values: dict[str, float]) -> None:
        """Write one line of metrics.jsonl and one point per value to TensorBoard."""
        if not self.active:
            return
        line = {"images": images, "time": round(time.time(), 3), **values}
        self.file.write(json.dumps(line) + "\n")
        self.file.flush()
        os.fsync(self.file.fileno())
        for name, value in values.items():
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
    """Read the lines of a metrics.jsonl; an incomplete last line, as after a kill, is skipped."""
    if not path.is_file():
        return []
    lines = path.read_text().split("\n")
    with unaltered(path):
        read: list[dict[str, float]] = [parse(dict[str, Any], read_json(line)) for line in lines[:-1] if line]
        for i, line in enumerate(read):
            parse(float, line.get("images"), f"line {i + 1}: images")
    return read


def check_trained(metrics: Sequence[Mapping[str, float]]) -> None:
    """Raise UserError if a run has no metrics, so that there is nothing to report."""
    if not metrics:
        raise UserError(f"{METRICS_FILE} has no lines: expected the folder of a run that has trained")
