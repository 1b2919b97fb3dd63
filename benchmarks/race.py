"""Test bits/dim against seconds of training, for the Glow of this project and of other libraries.

    pip install -e ".[bench]"
    python benchmarks/race.py --minutes 10      # 10 minutes each, on Fashion-MNIST

All models have the same size, optimiser, batches, noise and warm-up, and start from scratch. They take turns
of a few seconds, so that a slow minute of the machine affects all alike. Each has its own clock, which runs
during its training, including data-dependent initialisation, and stops while it is evaluated. Writes
race.json and race.png in docs/results.
"""

import argparse
import math
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peers import PEERS, Ours, Peer, Size
from saving import in_words, new_parser, publish, save_plot
from torch import Tensor

from flows.data.base import Split
from flows.data.fashion import Fashion
from flows.display.results import Made, Result, Shown

LR, WARMUP, CLIP, BATCH = 1e-3, 200, 50.0, 32
TURN = 10.0
"""Seconds of training per turn."""


class Runner:
    """Training of one model, with its own clock.

    Args:
        name: Name in the report.
        peer: Model.
        split: Training images.
        marks: Times of the clock at which the model is evaluated, seconds, ascending.
        held_out: Test images, floats in [−½, ½) with the same noise for all models.
    """

    def __init__(self, name: str, peer: Peer, split: Split, marks: list[float], held_out: Tensor):
        self.name, self.peer, self.split, self.held_out = name, peer, split, held_out
        self.marks = list(marks)
        self.optimiser = torch.optim.Adam(peer.model.parameters(), LR, fused=True)
        self.random = torch.Generator().manual_seed(0)
        self.seconds, self.steps = 0.0, 0
        self.curve: list[tuple[float, int, float]] = []

    @property
    def is_done(self) -> bool:
        """Whether the model has been evaluated at every mark."""
        return not self.marks

    def take_turn(self) -> None:
        """Train until the end of the turn or the next mark, and evaluate at a mark."""
        until = min(self.seconds + TURN, self.marks[0])
        self.peer.model.train()
        while self.seconds < until:
            start = time.perf_counter()
            self.step()
            self.seconds += time.perf_counter() - start
        if self.seconds >= self.marks[0]:
            self.marks.pop(0)
            self.curve.append((self.seconds, self.steps, self.evaluate()))
            print(self.name, *self.curve[-1], flush=True)

    def step(self) -> None:
        """Train one step on the next batch; all models get the same sequence of batches."""
        chosen = torch.randint(len(self.split), (BATCH,), generator=self.random)
        images = self.split.__getitems__(chosen.tolist()).images
        x = (images + torch.rand(images.shape, generator=self.random)) / 256 - 0.5
        if not self.steps and isinstance(self.peer, Ours):
            self.peer.model.initialise(images)
        for group in self.optimiser.param_groups:
            group["lr"] = LR * min(1.0, (self.steps + 1) / WARMUP)
        self.optimiser.zero_grad()
        bits(self.peer, x).backward()
        torch.nn.utils.clip_grad_norm_(self.peer.model.parameters(), CLIP)
        self.optimiser.step()
        self.steps += 1

    @torch.no_grad()
    def evaluate(self) -> float:
        """Bits/dim of the held-out images."""
        self.peer.model.eval()
        parts = self.held_out.split(250)
        return sum(float(bits(self.peer, part)) * len(part) for part in parts) / len(self.held_out)


def bits(peer: Peer, x: Tensor) -> Tensor:
    """Bits/dim of 8-bit images x/256, from the density on [−½, ½)."""
    return peer.loss(x) / (x[0].numel() * math.log(2)) + 8


def plot(result: Result, path: Path) -> None:
    """Plot bits/dim against minutes of training, with the name of each line at its end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.0), layout="constrained")
    measured = result.data["curves"]
    curves = {name: [each for each in curve if each[2] is not None] for name, curve in measured.items()}
    for name, curve in curves.items():
        if not curve:
            continue
        seconds, _, values = zip(*curve, strict=True)
        axes.plot(
            [s / 60 for s in seconds], values, "o-", markersize=3, linewidth=2 if name == "flows" else 1
        )
        axes.annotate(f"{name} {values[-1]:.2f}", (seconds[-1] / 60, values[-1]), xytext=(6, 0),
                      textcoords="offset points", va="center", fontsize=8,
                      color=axes.lines[-1].get_color(), annotation_clip=False)  # fmt: skip
    ends = sorted(value for curve in curves.values() for _, _, value in curve)
    axes.set_ylim(ends[0] - 0.1, min(ends[-1], ends[0] + 2.5) + 0.1)
    cores = result.made.machine.rpartition(", ")[2]
    axes.set(xlabel=f"minutes of training, {cores}")
    axes.set_title("Fashion-MNIST, test bits/dim", fontsize=9)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    save_plot(figure, result, path)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Curves of all models, which train in turns: seconds, steps and bits/dim at every mark."""
    data = Fashion()
    test = data.split("test").__getitems__(list(range(given.test_images))).images
    held_out = (test + torch.rand(test.shape, generator=torch.Generator().manual_seed(1))) / 256 - 0.5
    size = Size(depth=given.depth, width=given.width, channels=1)
    last = 60 * given.minutes
    marks = [mark for mark in (15.0, 30.0, 45.0) if mark < last]
    marks += [60.0 * minute for minute in range(1, int(given.minutes) + 1)]
    split = data.split("train")
    runners = []
    for name in ("flows", *given.against):
        torch.manual_seed(0)
        peer: Peer = Ours(size, official=True) if name == "flows" else PEERS[name](size)
        runners.append(Runner(name, peer, split, marks or [last], held_out))
    while any(not runner.is_done for runner in runners):
        for runner in runners:
            if not runner.is_done:
                runner.take_turn()
    return {
        "size": vars(size),
        "test_images": given.test_images,
        "curves": {runner.name: runner.curve for runner in runners},
    }


def result(data: dict[str, Any], made: Made) -> Result:
    """Table with one row per model, and one column per minute."""
    curves = data["curves"]
    first = next(iter(curves.values()))
    places = [i for i, (seconds, _, _) in enumerate(first) if seconds >= 60] or list(range(len(first)))
    columns = ["seconds", *(f"{first[i][0] // 60 * 60 or first[i][0]:.0f}" for i in places)]
    rows = [
        [name, *("–" if curve[i][2] is None else f"{curve[i][2]:.2f}" for i in places)]
        for name, curve in curves.items()
    ]
    size = data["size"]
    text = (
        f"Glow (K={size['depth']}, L={size['levels']}, width {size['width']}) on Fashion-MNIST. The "
        f"libraries take turns of {in_words(int(TURN))} seconds, each with its own clock, on the same "
        f"batches and noise. Bits/dim on {data['test_images']:,} test images."
    )
    pictures = {"race.png": "Bits/dim of the test images against minutes of training, for each library"}
    return Result(
        "Bits/dim at equal training time", made, {"table": Shown(columns, rows)}, text, pictures, data
    )


def main() -> None:
    """Train all models in turns; write race.json and race.png, and print the table."""
    parser = new_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--depth", type=int, default=8)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--test-images", type=int, default=1000)
    parser.add_argument("--against", nargs="+", default=["normflows", "FrEIA"], choices=sorted(PEERS))
    given = parser.parse_args()
    made = publish(given, "race", result, partial(measure, given))
    plot(made, given.output / "race.png")


if __name__ == "__main__":
    main()
