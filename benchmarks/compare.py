"""The same Glow here and in other libraries: seconds, memory against depth, and the round trip.

    pip install -e ".[bench]"
    python benchmarks/compare.py --output benchmarks/results            # half an hour on two cores
    python benchmarks/compare.py --quick --output quick-results          # two minutes, a smaller model

Every measurement alternates A B A B within one run and is reported as a median and as a ratio to ours, so
that a slow minute of the machine falls on all alike; seconds of two runs are not to be compared. Memory is
the growth of the process during one step, of a fresh process each, without parameters, their gradients and
the optimiser's state. Writes results.json, results.md and memory.png.
"""

import argparse
import ctypes
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peers import PEERS, Ours, Peer, Size

from flows import __version__
from flows.files import write_atomically
from flows.memory import MemoryMode
from flows.once import prepared

MODES: tuple[MemoryMode, ...] = ("plain", "checkpoint", "reversible", "anchored")
OURS = {"flows" if mode == "plain" else f"flows, {mode}": mode for mode in MODES}


def build(name: str, size: Size) -> Peer:
    """The model of that name, from the same seed."""
    torch.manual_seed(0)
    return Ours(size, OURS[name]) if name in OURS else PEERS[name](size)


def pictures(batch: int, size: Size) -> torch.Tensor:
    """Smooth random images in [−½, ½)."""
    coarse = torch.randn(batch, size.channels, 4, 4, generator=torch.Generator().manual_seed(1))
    smooth = torch.nn.functional.interpolate(coarse, size.side, mode="bicubic")
    return torch.tanh(smooth) * 0.49


def train_step(peer: Peer, x: torch.Tensor) -> Callable[[], None]:
    """Forward, backward, optimiser; the same optimiser for all."""
    optimiser = torch.optim.Adam(peer.model.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimiser.zero_grad()
        peer.loss(x).backward()
        optimiser.step()

    return step


def alternate(functions: dict[str, Callable[[], Any]], repeats: int, warm: int = 2) -> dict[str, float]:
    """Median seconds of each, run in turns."""
    seconds: dict[str, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + warm):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= warm:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def steps(size: Size, batch: int, repeats: int) -> dict[str, float]:
    """Seconds per training step, of ours in every mode and of the peers."""
    x = pictures(batch, size)
    return alternate({name: train_step(build(name, size), x) for name in (*OURS, *PEERS)}, repeats)


def directions(size: Size, batch: int, repeats: int, trained: int) -> dict[str, dict[str, float]]:
    """Seconds to encode and decode `batch` images, and the round trip after `trained` steps."""
    x = pictures(batch, size)
    noise = torch.randint(2, x.shape, generator=torch.Generator().manual_seed(2)) * 0.998 - 0.499
    found: dict[str, dict[str, float]] = {"encode": {}, "decode": {}, "error in": {}, "error off": {}}
    peers = {name: build(name, size) for name in ("flows", *PEERS)}
    for peer in peers.values():
        step = train_step(peer, pictures(32, size))
        for _ in range(trained):
            step()
        peer.model.eval()
    with torch.no_grad():
        codes = {name: peer.encode(x) for name, peer in peers.items()}
        for name, peer in peers.items():
            for kind, images in {"error in": x, "error off": noise}.items():
                found[kind][name] = float((peer.decode(peer.encode(images)) - images).abs().max())
        # Ours knows that no weight changes between the calls; the peers have nothing to be told.
        with prepared():
            found["encode"] = alternate({n: lambda p=p: p.encode(x) for n, p in peers.items()}, repeats)
            found["decode"] = alternate(
                {n: lambda p=p, n=n: p.decode(codes[n]) for n, p in peers.items()}, repeats
            )
    return found


# Memory -------------------------------------------------------------------------------------------


def memory_of(name: str, size: Size, batch: int) -> float:
    """MB that one step adds at its peak, in this process; parameters, gradients and state are taken off."""
    peer, x = build(name, size), pictures(batch, size)
    step = train_step(peer, x[:1])
    step()
    peer.model.zero_grad()
    libc = ctypes.CDLL(None)
    libc.malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = _status("VmRSS")
    peer.loss(x).backward()
    gradients = sum(p.numel() * 4 for p in peer.model.parameters() if p.grad is not None)
    return (_status("VmHWM") - before - gradients) / 1e6


def _status(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise KeyError(key)


def memory_against_depth(
    names: list[str], depths: list[int], size: Size, batch: int
) -> dict[str, list[float]]:
    """MB by depth, each figure from a process of its own."""
    found: dict[str, list[float]] = {name: [] for name in names}
    for depth in depths:
        for name in names:
            options = ["--memory-of", name, "--depth", str(depth), "--width", str(size.width)]
            options += ["--batch", str(batch)]
            done = subprocess.run(
                [sys.executable, __file__, *options], capture_output=True, text=True, check=True
            )
            found[name].append(float(done.stdout.strip().splitlines()[-1]))
    return found


def draw_memory(depths: list[int], found: dict[str, list[float]], path: Path) -> None:
    """Memory against depth, both axes logarithmic."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6.4, 4.2), layout="constrained")
    for name, values in found.items():
        ours = name.startswith("flows")
        axes.plot(depths, values, "o-" if ours else "s--", label=name, linewidth=2 if ours else 1)
    axes.set(
        xscale="log", yscale="log", xlabel="depth K, steps per level", ylabel="MB of activations, one step"
    )
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()
    axes.legend(fontsize=8)
    axes.grid(alpha=0.3)
    write_atomically(path, lambda place: figure.savefig(place, dpi=110, format="png"))


# Report -------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """Tables of ratios, ours first."""
    size = results["size"]
    head = (
        f"K={size['depth']} L={size['levels']} width {size['width']}, {size['side']}×{size['side']}×"
        f"{size['channels']}, torch {results['torch']}, {results['threads']} threads, medians of "
        f"{results['repeats']} alternating repeats"
    )
    base = results["step"]["flows"]
    depths = results["memory"]["depths"]
    lines = [head, "", "| training step, batch 32 | seconds | × ours |", "| --- | --: | --: |"]
    lines += [f"| {name} | {s:.3f} | {s / base:.2f} |" for name, s in results["step"].items()]
    for batch, found in results["directions"].items():
        columns = ["encode, ms", "× ours", "decode, ms", "× ours", "error in the data", "error on noise"]
        lines += ["", f"| batch {batch} | {' | '.join(columns)} |", "| --- |" + " --: |" * len(columns)]
        for name in found["encode"]:
            e, d = found["encode"], found["decode"]
            lines.append(
                f"| {name} | {1e3 * e[name]:.0f} | {e[name] / e['flows']:.2f} | {1e3 * d[name]:.0f} | "
                f"{d[name] / d['flows']:.2f} | {found['error in'][name]:.0e} | "
                f"{found['error off'][name]:.0e} |"
            )
    lines += ["", "| MB of activations at K = | " + " | ".join(map(str, depths)) + " |"]
    lines += ["| --- |" + " --: |" * len(depths)]
    lines += [
        f"| {name} | " + " | ".join(f"{mb:.0f}" for mb in values) + " |"
        for name, values in results["memory"]["mb"].items()
    ]
    lines += ["", "| | parameters | note |", "| --- | --: | --- |"]
    lines += [f"| {name} | {of['parameters']:,} | {of['note']} |" for name, of in results["models"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Measure, or with --memory-of print one figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=Path("benchmarks/results"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--depth", type=int, default=16)
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    given = parser.parse_args()
    size = Size(depth=given.depth, width=given.width)
    if given.memory_of:
        print(memory_of(given.memory_of, size, given.batch))
        return
    depths = [4, 8, 16, 32, 64]
    if given.quick:
        size, depths, given.repeats = Size(depth=4, width=64), [2, 4], 3

    names = [*OURS, *PEERS]
    built = {name: build(name, size) for name in ("flows", *PEERS)}
    results: dict[str, Any] = {
        "flows": __version__, "torch": torch.__version__, "threads": torch.get_num_threads(),
        "repeats": given.repeats, "size": vars(size),
        "models": {n: {"parameters": p.count(), "note": p.note} for n, p in built.items()},
    }  # fmt: skip
    del built
    mb = memory_against_depth(names, depths, size, given.batch)
    results["memory"] = {"depths": depths, "mb": mb}
    results["step"] = steps(size, given.batch, given.repeats)
    trained = 5 if given.quick else 30
    results["directions"] = {
        str(batch): directions(size, batch, 3 * given.repeats, trained) for batch in (32, 1)
    }
    given.output.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=2)
    write_atomically(given.output / "results.json", lambda path: path.write_text(text))
    write_atomically(given.output / "results.md", lambda path: path.write_text(markdown(results)))
    draw_memory(depths, results["memory"]["mb"], given.output / "memory.png")
    print(markdown(results))


if __name__ == "__main__":
    main()
