"""Time, memory against depth, and round-trip errors of the same Glow in this project and in other libraries.

    pip install -e ".[bench]"
    python benchmarks/compare.py --output benchmarks/results            # half an hour on two cores
    python benchmarks/compare.py --quick --output quick-results          # two minutes, a smaller model

Times are measured alternately (A B A B) in one run and reported as medians. A ratio is the median over all
rounds of the ratio within the round, so that a slow minute of the machine affects all models alike; times of
two runs must not be compared. Memory is the peak that one training step adds, in a fresh process for each
figure, without parameters, their gradients and the state of the optimiser. It is measured twice: as live
tensors in torch's allocator (as `max_memory_allocated` on a GPU), and as growth of the process, including
memory that the heap cannot return. Writes results.json, results.md and memory.png.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from peers import PEERS, VECTORS, Ours, Peer, Size
from timing import alternate, medians, ratios
from torch.profiler import ProfilerActivity, profile

from flows import __version__
from flows.core.once import prepared
from flows.data.photos import Photos
from flows.memory import MemoryMode
from flows.storage.files import write_atomically

MODES: tuple[MemoryMode, ...] = ("plain", "checkpoint", "reversible", "anchored")
OURS = {"flows" if mode == "plain" else f"flows, {mode}": mode for mode in MODES}
OFFICIAL = "flows, with marked borders"
TIMED_DIRECTIONS = ("normflows", "nflows", "FrEIA")


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


def draw_memory(depths: list[int], measured: dict[str, list[float]], path: Path) -> None:
    """Plot memory against depth, on logarithmic axes, with the name of each line at its end."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), layout="constrained")
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
    write_atomically(path, lambda place: figure.savefig(place, dpi=110, format="png"))


# Report -------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """Markdown tables of all results."""
    size = results["size"]
    lines = [
        f"K={size['depth']} L={size['levels']} width {size['width']}, {size['side']}×{size['side']}×"
        f"{size['channels']}, torch {results['torch']}, {results['threads']} threads, medians of "
        f"{results['repeats']} alternating repeats"
    ]
    for title, key in (("training step, batch 32", "step"), ("training step of NICE, batch 32", "vectors")):
        seconds, ratio = results[key]["seconds"], results[key]["ratio"]
        lines += ["", f"| {title} | seconds | × ours |", "| --- | --: | --: |"]
        lines += [f"| {name} | {s:.3f} | {ratio[name]:.2f} |" for name, s in seconds.items()]
    for batch, timed in results["directions"].items():
        columns = ["encode, ms", "× ours", "decode, ms", "× ours"]
        lines += ["", f"| batch {batch} | {' | '.join(columns)} |", "| --- |" + " --: |" * len(columns)]
        for name in timed["encode"]["seconds"]:
            times = [
                text
                for way in ("encode", "decode")
                for text in (f"{1e3 * timed[way]['seconds'][name]:.0f}", f"{timed[way]['ratio'][name]:.2f}")
            ]
            lines.append(f"| {name} | {' | '.join(times)} |")
    trips = results["round trip"]
    title = f"largest error of the round trip, {results['trained']} steps on photographs"
    lines += ["", f"| {title} | {' | '.join(trips)} |", "| --- |" + " --: |" * len(trips)]
    for name in next(iter(trips.values())):
        lines.append(f"| {name} | " + " | ".join(f"{of[name]:.0e}" for of in trips.values()) + " |")
    depths = results["memory"]["depths"]
    for kind, title in (("live", "live tensors, MB,"), ("process", "growth of the process, MB,")):
        lines += ["", f"| {title} at K = | " + " | ".join(map(str, depths)) + " |"]
        lines += ["| --- |" + " --: |" * len(depths)]
        lines += [
            f"| {name} | " + " | ".join(f"{mb:.1f}" if mb < 100 else f"{mb:.0f}" for mb in values) + " |"
            for name, values in results["memory"][kind].items()
        ]
    lines += ["", "| | parameters | note |", "| --- | --: | --- |"]
    lines += [f"| {name} | {of['parameters']:,} | {of['note']} |" for name, of in results["models"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure all models and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
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
    size = Size(depth=given.depth, width=given.width)
    if given.memory_of:
        print(json.dumps(memory_of(given.memory_of, size, given.batch)))
        return
    depths = [2, 4] if given.quick else [4, 8, 16, 32, 64]
    names = ["flows", "flows, reversible", "normflows", "memcnn"] if given.quick else [*OURS, *PEERS]
    built = {name: build(name, size) for name in ("flows", OFFICIAL, *PEERS)}
    results: dict[str, Any] = {
        "flows": __version__, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "repeats": given.repeats, "size": vars(size),
        "models": {n: {"parameters": p.count(), "note": p.note} for n, p in built.items()},
    }  # fmt: skip
    del built
    results["memory"] = {"depths": depths, **memory_against_depth(names, depths, size, given.batch)}
    results["step"] = steps(size, given.batch, given.repeats)
    results["vectors"] = vector_steps(size, given.batch, given.repeats)
    results["trained"] = 10 if given.quick else 60
    peers = trained_models(size, results["trained"])
    results["round trip"] = round_trips(peers, size)
    results["directions"] = {
        str(batch): directions(peers, size, batch, 3 * given.repeats) for batch in (32, 1)
    }
    given.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2)
    write_atomically(given.output / "results.json", lambda path: path.write_text(text))
    write_atomically(given.output / "results.md", lambda path: path.write_text(markdown(results)))
    draw_memory(depths, results["memory"]["live"], given.output / "memory.png")
    print(markdown(results))


if __name__ == "__main__":
    main()
