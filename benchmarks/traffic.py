"""Changes of file within `flows/` in two tasks: scoring a direction, and moving a slider of the studio.

    python benchmarks/traffic.py

A reader who follows a call through the package has to change files as often. `sys.setprofile` reports every
call and return of Python code; those from one file of the package to another are counted. Each task runs once
before it is counted, so that imports and caches are not included.
"""

import argparse
import contextlib
import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch

from flows.cli import commands
from flows.studio.page import Page
from flows.studio.session import Studio
from flows.studio.state import FIRST_PAGE

ROOT = Path(__file__).parents[1]
PACKAGE = f"{ROOT / 'flows'}/"
MODEL = ROOT / "checkpoints/scenes-glow"
INNER = ("bijections/", "networks/")
"""Folders of bijections and networks, where most changes are from one step of a chain to the next."""


class Tracer:
    """Counts of (file, next file), for `sys.setprofile`."""

    def __init__(self) -> None:
        self.changes: Counter[tuple[str, str]] = Counter()
        self.here: str | None = None

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        name = frame.f_code.co_filename
        if not name.startswith(PACKAGE):
            return
        if event == "return":
            caller = frame.f_back
            while caller is not None and not caller.f_code.co_filename.startswith(PACKAGE):
                caller = caller.f_back
            name = caller.f_code.co_filename if caller is not None else ""
        if event in ("call", "return") and name:
            if self.here not in (None, name):
                self.changes[str(self.here)[len(PACKAGE) :], name[len(PACKAGE) :]] += 1
            self.here = name


def traced(task: Callable[[], object]) -> Tracer:
    """Run a task twice and trace the second run."""
    task()
    tracer = Tracer()
    sys.setprofile(tracer)
    try:
        task()
    finally:
        sys.setprofile(None)
    return tracer


def score(folder: Path) -> None:
    """Run `flows steer score` for one direction on 100 samples."""
    commands()["steer score"](
        str(MODEL), MODEL / "directions.safetensors", ["daylight"], n=100, steps=1, out=folder / "score"
    )


def slider(folder: Path) -> Callable[[], object]:
    """Task that moves one slider, from the page's callback to the picture."""
    studio = Studio([str(MODEL)], [], folder, exemplars=60)
    page, session = Page(studio), studio.sample(MODEL.name, 0, 0.8)
    still = [0.0] * (len(studio.slots(MODEL.name)) - 1)
    values = iter((1.0, 1.7))
    return lambda: page.steer(session, FIRST_PAGE, [], [], 0.0, next(values), *still)


def main() -> None:
    """Count the changes of both tasks and print the most frequent ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--json", type=Path, help="file for the counts")
    parser.add_argument("--top", type=int, default=12, help="number of most frequent changes printed")
    given = parser.parse_args()
    torch.set_num_threads(1)
    counts: dict[str, dict[str, int]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for label, task in (("score", lambda: score(folder)), ("slider", slider(folder))):
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                changes = traced(task).changes
            outside = {pair: n for pair, n in changes.items() if not any(f.startswith(INNER) for f in pair)}
            counts[label] = {
                "changes": sum(changes.values()), "pairs": len(changes),
                "outside maps": sum(outside.values()),
            }  # fmt: skip
            print(f"{label}: {counts[label]}")
            for (first, second), n in Counter(outside).most_common(given.top):
                print(f"  {n:5d}  {first} → {second}")
    if given.json:
        given.json.write_text(json.dumps(counts, indent=1))


if __name__ == "__main__":
    main()
