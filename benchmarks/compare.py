"""Time, memory against depth, and round-trip errors of the same Glow in this project and in other libraries.

    pip install -e ".[bench]"
    python benchmarks/compare.py                                   # half an hour on two cores
    python benchmarks/compare.py --quick --output quick-results    # two minutes, a smaller model

Times are measured alternately (A B A B) in one run and reported as medians. A ratio is the median over all
rounds of the ratio within the round, so that a slow minute of the machine affects all models alike; times of
two runs must not be compared. Memory is the peak that one training step adds, in a fresh process for each
figure, without parameters, their gradients and the state of the optimiser. It is measured twice: as live
tensors in torch's allocator (as `max_memory_allocated` on a GPU), and as growth of the process, including
memory that the heap cannot return. Writes libraries.json, memory.json and memory.png in docs/results.
"""

import argparse
import ctypes
import json
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from peers import PEERS, VECTORS, Ours, Peer, Size
from saving import new_parser, publish, save_plot, short_exponent
from timing import alternate, medians, ratios
from torch.profiler import ProfilerActivity, profile

from flows import __version__
from flows.core.once import prepared
from flows.data.photos import Photos
from flows.display.results import Made, Result, Shown
from flows.memory import MemoryMode

MODES: tuple[MemoryMode, ...] = ("plain", "checkpoint", "reversible", "anchored")
OURS = {"flows" if mode == "plain" else f"flows, {mode}": mode for mode in MODES}
OFFICIAL = "flows, with marked borders"
TIMED_DIRECTIONS = ("normflows", "nflows", "FrEIA")
STORED = {
    "plain": "every activation that autograd needs",
    "checkpoint": "the input of each step; the step is computed again in the backward pass",
    "reversible": "the output of the level; each step is inverted in the backward pass",
    "anchored": "the input of every M-th step (`anchor_every`); the steps in between are inverted",
}
"""Tensors that each memory mode stores per level."""


def build(name: str, size: Size) -> Peer:
    """Build the model of a name, initialised from the same seed."""
    torch.manual_seed(0)
    if name == OFFICIAL:
        return Ours(size, official=True)
    return Ours(size, OURS[name]) if name in OURS else PEERS[name](size)


def pictures(batch: int, size: Size) -> torch.Tensor:
    """Smooth random images in [−½, ½)."""
    coarse = torch.randn(batch, size.channels, 4, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, size.side, mode="bicubic")
    return torch.tanh(smooth) * 0.49


def train_step(peer: Peer, x: torch.Tensor) -> Callable[[], None]:
    """Training step of a model, with the same optimiser for all models: forward, backward, update."""
    optimiser = torch.optim.Adam(peer.model.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        peer.loss(x).backward()
        optimiser.step()

    return step


def compared(functions: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """Median seconds of each function, and the ratio to those of this project."""
    seconds = alternate(functions, repeats)
    return {"seconds": medians(seconds), "ratio": ratios(seconds, "flows")}


def steps(size: Size, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Times of a training step, for this project in every memory mode and for the peers."""
    x = pictures(batch, size)
    names = (*OURS, OFFICIAL, *PEERS)
    return compared({name: train_step(build(name, size), x) for name in names}, repeats)


def vector_steps(size: Size, batch: int, repeats: int) -> dict[str, dict[str, float]]:
    """Times of a training step of NICE on images as vectors."""
    x = pictures(batch, size)
    return compared({name: train_step(kind(size), x) for name, kind in VECTORS.items()}, repeats)


def trained_models(size: Size, trained: int) -> dict[str, Peer]:
    """Models of this project and of the peers, trained on the same batches of patches of photographs.

    Args:
        size: Size of the models.
        trained: Number of training steps.
    """
    images = Photos(size.side).split("train").images
    peers = {name: build(name, size) for name in ("flows", *TIMED_DIRECTIONS)}
    for peer in peers.values():
        random = torch.Generator().manual_seed(0)
        if isinstance(peer, Ours):  # the peers initialise themselves, if at all
            peer.model.initialise(images[torch.randperm(len(images), generator=random)[:256]])
        optimiser = torch.optim.Adam(peer.model.parameters(), 1e-3, fused=True)
        for step in range(trained):
            batch = images[torch.randint(len(images), (32,), generator=random)]
            for group in optimiser.param_groups:
                group["lr"] = 1e-3 * min(1.0, (step + 1) / 50)
            optimiser.zero_grad()
            peer.loss((batch + torch.rand(batch.shape, generator=random)) / 256 - 0.5).backward()
            optimiser.step()
        peer.model.eval()
    return peers


@torch.no_grad()
def round_trips(peers: dict[str, Peer], size: Size) -> dict[str, dict[str, float]]:
    """Largest error of the round trip of held-out photographs and of binary noise."""
    photographs = (Photos(size.side).split("test").first(32).images + 0.5) / 256 - 0.5
    random = torch.Generator().manual_seed(2)
    noise = torch.randint(2, photographs.shape, generator=random) * 0.998 - 0.499
    return {
        kind: {
            name: float((peer.decode(peer.encode(images)) - images).abs().max())
            for name, peer in peers.items()
        }
        for kind, images in {"held-out photographs": photographs, "binary noise": noise}.items()
    }


@torch.no_grad()
def directions(peers: dict[str, Peer], size: Size, batch: int, repeats: int) -> dict[str, Any]:
    """Times to encode and to decode `batch` images."""
    x = pictures(batch, size)
    codes = {name: peer.encode(x) for name, peer in peers.items()}
    # Inside `prepared()` no weight changes between the calls; the peers have no such option.
    with prepared():
        encode = compared({n: lambda p=p: p.encode(x) for n, p in peers.items()}, repeats)
        decode = compared({n: lambda p=p, n=n: p.decode(codes[n]) for n, p in peers.items()}, repeats)
    return {"encode": encode, "decode": decode}


# Memory -------------------------------------------------------------------------------------------


def memory_of(name: str, size: Size, batch: int) -> dict[str, float]:
    """Peak memory in MB that one step adds to this process, without parameters, gradients and state."""
    peer, x = build(name, size), pictures(batch, size)
    train_step(peer, x[:1])()
    peer.model.zero_grad()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before = _status("VmRSS")
    peer.loss(x).backward()
    gradients = sum(p.numel() * 4 for p in peer.model.parameters() if p.grad is not None)
    process = _status("VmHWM") - before - gradients
    peer.model.zero_grad()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        peer.loss(x).backward()
    return {"live": (_peak_of_live(recorded) - gradients) / 1e6, "process": process / 1e6}


def _peak_of_live(recorded: profile) -> int:
    """Peak in bytes over all allocations and releases that torch has recorded."""
    events = cast(Any, recorded.profiler).kineto_results.events()
    changes = [(event.start_ns(), event.nbytes()) for event in events if event.name() == "[memory]"]
    live = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        live += change
        peak = max(peak, live)
    return peak


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def memory_against_depth(names: list[str], depths: list[int], size: Size, batch: int) -> dict[str, Any]:
    """Memory in MB for each depth, each figure from a process of its own."""
    measured: dict[str, dict[str, list[float]]] = {"live": {}, "process": {}}
    for name in names:
        for depth in depths:
            options = ["--memory-of", name, "--depth", str(depth), "--width", str(size.width)]
            command = [sys.executable, __file__, *options, "--batch", str(batch)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            for kind, mb in json.loads(done.stdout.strip().splitlines()[-1]).items():
                measured[kind].setdefault(name, []).append(mb)
    return measured


def draw_memory(result: Result, path: Path) -> None:
    """Plot live tensors against depth, on logarithmic axes, with the name of each line at its end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
    depths, measured = result.data["memory"]["depths"], result.data["memory"]["live"]
    last = 0.0
    for name, values in sorted(measured.items(), key=lambda pair: pair[1][-1]):
        ours = name.startswith("flows")
        axes.plot(depths, values, "o-" if ours else "s--", linewidth=2 if ours else 1, markersize=4)
        last = max(values[-1], 1.16 * last)  # minimum distance between labels
        axes.annotate(name, (depths[-1], last), xytext=(8, 0), textcoords="offset points", va="center",
                      fontsize=8, color=axes.lines[-1].get_color(), annotation_clip=False)  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="depth K (steps per level)")
    axes.set_title(
        "Memory of one training step without parameters, gradients and optimiser state, MB", fontsize=9
    )
    axes.set_xticks(depths, [str(depth) for depth in depths])
    marks = [mark for mark in (25, 50, 100, 200, 400, 800, 1600) if mark < 1.3 * last]
    axes.set_yticks(marks, [str(mark) for mark in marks])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.3)
    save_plot(figure, result, path)


# Report -------------------------------------------------------------------------------------------


def brief(data: dict[str, Any]) -> Shown:
    """Short table of times and memory, with ratios to this project."""
    depths, live = data["memory"]["depths"], data["memory"]["live"]
    seconds, ratio = data["step"]["seconds"], data["step"]["ratio"]
    own = ("flows", "flows, reversible", "flows, anchored")
    rows = []
    for name in (*own, *sorted(data["versions"], key=lambda peer: ratio[peer])):
        ways = [
            tuple(data["directions"][batch][way] for way in ("encode", "decode")) for batch in ("32", "1")
        ]
        if name == "flows":
            step = f"{seconds[name]:.2f} s"
            times = [" / ".join(f"{1e3 * way['seconds'][name]:.0f}" for way in both) + " ms" for both in ways]
        else:
            step = f"× {ratio[name]:.2f}"
            times = [
                "× " + " / ".join(f"{way['ratio'][name]:.2f}" for way in both)
                if name in both[0]["ratio"]
                else ""
                for both in ways
            ]
        rows.append([label(name, data["versions"]), step, *times, megabytes(live, name, -1)])
    columns = [
        "",
        f"training step, batch {data['batch']}",
        "encode / decode, batch 32",
        "encode / decode, batch 1",
        f"memory of a step, K={depths[-1]}",
    ]
    return Shown(columns, rows, "Time and memory of a training step", names=[0])


def label(name: str, versions: dict[str, str]) -> str:
    """Name of a mode or library, with the version of the library."""
    if name.startswith("flows, "):
        return f"flows, `{name.removeprefix('flows, ')}`"
    text = f"{name} {versions[name]}" if name in versions else name
    return f"{text}, around FrEIA's blocks" if name == "memcnn" else text


def megabytes(measured: dict[str, list[float]], name: str, place: int) -> str:
    """Memory of a mode or library at one of the depths; empty if it was not measured."""
    return f"{measured[name][place]:,.0f} MB" if name in measured else ""


def brief_memory(data: dict[str, Any]) -> Shown:
    """Short table of live tensors: modes at two depths, beside the reversible library."""
    depths, live = data["memory"]["depths"], data["memory"]["live"]
    shown = {
        "flows": "plain",
        "flows, checkpoint": "checkpoint",
        "flows, anchored": "anchored, M=4",
        "flows, reversible": "reversible",
        "memcnn": "memcnn (reversible)",
    }
    places = [len(depths) // 4, -1]
    rows = [
        [text, *(megabytes(live, name, place) for place in places)]
        for name, text in shown.items()
        if name in live
    ]
    columns = ["mode or library", *(f"live tensors at K={depths[place]}" for place in places)]
    return Shown(columns, rows, "Live tensors of a training step, MB", names=[0])


def timed(found: dict[str, dict[str, float]], title: str) -> Shown:
    """Table of seconds and ratios."""
    rows = [[name, f"{s:.3f}", f"{found['ratio'][name]:.2f}"] for name, s in found["seconds"].items()]
    return Shown(["", "seconds", "× ours"], rows, title, names=[0])


def timed_directions(ways: dict[str, dict[str, dict[str, float]]], batch: str) -> Shown:
    """Table of the times to encode and to decode."""
    rows = []
    for name in ways["encode"]["seconds"]:
        cells = [(f"{1e3 * way['seconds'][name]:.0f}", f"{way['ratio'][name]:.2f}") for way in ways.values()]
        rows.append([name, *(cell for pair in cells for cell in pair)])
    columns = ["", *(each for way in ways for each in (f"{way}, ms", "× ours"))]
    return Shown(columns, rows, f"Encoding and decoding, batch {batch}", names=[0])


def errors(data: dict[str, Any]) -> Shown:
    """Table of the largest errors of the round trip."""
    trips, reasons = data["round trip"], data.get("round trip_reason", {})

    def cell(kind: str, name: str) -> str:
        if (value := trips[kind][name]) is not None:
            return short_exponent(f"{value:.0e}")
        return "∞" if reasons[kind][name] == "infinite" else "NaN"

    rows = [[name, *(cell(kind, name) for kind in trips)] for name in next(iter(trips.values()))]
    title = f"Largest error of the round trip, after {data['trained']} training steps on photographs"
    return Shown(["", *trips], rows, title, names=[0])


def memory_by_depth(depths: Sequence[int], measured: dict[str, list[float]], title: str) -> Shown:
    """Table of memory in MB, with a column for each depth."""
    rows = [
        [name, *(f"{mb:.1f}" if mb < 100 else f"{mb:,.0f}" for mb in values)]
        for name, values in measured.items()
    ]
    return Shown(["K", *map(str, depths)], rows, title, names=[0])


def result(data: dict[str, Any], made: Made) -> Result:
    """Short tables of times and memory, then all figures."""
    size, memory, models = data["size"], data["memory"], data["models"]
    tables = {
        "steps": brief(data),
        "memory": brief_memory(data),
        "training": timed(data["step"], f"Training step, batch {data['batch']}"),
        "vectors": timed(data["vectors"], f"Training step of NICE on vectors, batch {data['batch']}"),
        **{
            f"directions-{batch}": timed_directions(ways, batch) for batch, ways in data["directions"].items()
        },
        "errors": errors(data),
        "live": memory_by_depth(memory["depths"], memory["live"], "Live tensors at depth K, MB"),
        "process": memory_by_depth(
            memory["depths"], memory["process"], "Growth of the process at depth K, MB"
        ),
        "models": Shown(
            ["", "parameters", "note"],
            [[name, f"{of['parameters']:,}", of["note"]] for name, of in models.items()],
            "Models",
            names=[0, 2],
        ),
    }
    ours = models["flows"]["parameters"]
    apart = max(abs(of["parameters"] / ours - 1) for name, of in models.items() if name != OFFICIAL)
    text = (
        f"The same Glow (K={size['depth']}, L={size['levels']}, width {size['width']}, {size['side']}×"
        f"{size['side']}×{size['channels']}, parameters within {math.ceil(100 * apart)} %) in one run; "
        f"medians of {data['repeats']} alternating repeats, ratios within rounds."
    )
    pictures = {"memory.png": "Memory of one training step against depth K, MB of live tensors"}
    return Result("Beside other libraries", made, tables, text, pictures, data)


def modes(data: dict[str, float], made: Made) -> Result:
    """Table of the memory modes: what they store, and the time of a step relative to `plain`."""
    columns = ["`training.memory`", "stored per level", "time per step, relative to `plain`"]
    rows = [
        [f"`{mode}`", text, f"{data[mode]:.2f}" if mode != "plain" else "1"] for mode, text in STORED.items()
    ]
    tables = {"table": Shown(columns, rows, names=[0, 1, 2])}
    return Result("Training in less memory", made, tables, "Times of Glow on a CPU.", data=data)


def mode_ratios(data: dict[str, Any]) -> dict[str, float]:
    """Time of a step in each memory mode, relative to `plain`."""
    return {mode: data["step"]["ratio"][name] for name, mode in OURS.items()}


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Figures of all models."""
    size = Size(depth=given.depth, width=given.width)
    depths = [2, 4] if given.quick else [4, 8, 16, 32, 64]
    names = ["flows", "flows, reversible", "normflows", "memcnn"] if given.quick else [*OURS, *PEERS]
    built = {name: build(name, size) for name in ("flows", OFFICIAL, *PEERS)}
    found: dict[str, Any] = {
        "flows": __version__, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "versions": {name: ".".join(version(name).split(".")[:2]) for name in PEERS},
        "repeats": given.repeats, "batch": given.batch, "size": vars(size),
        "models": {n: {"parameters": p.count(), "note": p.note} for n, p in built.items()},
    }  # fmt: skip
    del built
    found["memory"] = {"depths": depths, **memory_against_depth(names, depths, size, given.batch)}
    found["step"] = steps(size, given.batch, given.repeats)
    found["vectors"] = vector_steps(size, given.batch, given.repeats)
    found["trained"] = 10 if given.quick else 60
    peers = trained_models(size, found["trained"])
    found["round trip"] = round_trips(peers, size)
    found["directions"] = {str(batch): directions(peers, size, batch, 3 * given.repeats) for batch in (32, 1)}
    return found


def main() -> None:
    """Measure all models; write libraries.json, memory.json and memory.png, and print the tables."""
    parser = new_parser(__doc__)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument(
        "--quick", action="store_true", help="smaller model, memory of four models at two depths: two minutes"
    )
    parser.add_argument("--memory-of", help="print only the memory of one step of this model, in MB")
    given = parser.parse_args()
    if given.quick:
        given.depth, given.width, given.repeats = 4, 64, 3
    if given.memory_of:
        size = Size(depth=given.depth, width=given.width)
        print(json.dumps(memory_of(given.memory_of, size, given.batch)))
        return
    made = publish(given, "libraries", result, partial(measure, given))
    publish(given, "memory", modes, partial(mode_ratios, made.data))
    draw_memory(made, given.output / "memory.png")


if __name__ == "__main__":
    main()
