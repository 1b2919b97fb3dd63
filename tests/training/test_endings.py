"""Every way in which a training ends, with loader processes and ranks: soon, and with its message."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_training import ENVIRONMENT, ROOT, command, losses, wait_for

from flows.training.checkpoint import states

ODD = '''
"""A data set that fails at a training image of its own choice."""

import os
import time

import torch

from flows.data.base import ArraySplit, ImageData
from flows.errors import UserError


class Failing(ArraySplit):
    way = "none"

    def __getitems__(self, indices):
        if self.way != "none" and self.served > 20:
            raise {"bug": RuntimeError("planted"), "user": UserError("picture 7 is odd")}[self.way]
        self.served += 1
        time.sleep(0.005)
        return super().__getitems__(indices)


class Odd(ImageData):
    name, image_shape, bins = "odd", (1, 8, 8), 256

    def __init__(self, way: str = "none"):
        self.way = way

    def split(self, name):
        images = torch.randint(256, (400, 1, 8, 8), dtype=torch.uint8)
        split = Failing(images)
        split.way, split.served = (self.way if name == "train" else "none"), 0
        return split
'''
OPTIONS = [
    "--model.levels=2", "--training.batch=16", "--training.log_every=16", "--training.warmup=16",
    "--training.validation_images=16", "--training.images=1000000", "--training.validate_every=1000000",
    "--training.save_every=320",
]  # fmt: skip
SECONDS = 10
"""Time within which every ending is over."""


def start(folder, way, workers, ranks, *more):
    (folder / "odd_data.py").write_text(ODD)
    planted = way if way in ("bug", "user") else "none"
    data = f"--data={{class_path: odd_data.Odd, init_args: {{way: {planted}}}}}"
    options = [*OPTIONS, "--allow_import=odd_data", data, f"--training.workers={workers}", *more]
    environment = {**ENVIRONMENT, "PYTHONPATH": f"{ROOT}:{folder}"}
    return subprocess.Popen(
        command(folder / "run", *options, config="configs/folder/glow.yaml", ranks=ranks), cwd=ROOT,
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip


def ends(process, seconds=SECONDS):
    """Exit code and output of a process that ends in time; otherwise its whole group is killed."""
    begun = time.monotonic()
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        pytest.fail(f"still there after {seconds} s")
    print(f"ended after {time.monotonic() - begun:.1f} s")
    return process.returncode, out, err


def children(process):
    """Processes of the group of a run that are still there."""
    alive = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[2]) == process.pid and fields[0] != "Z":
            alive.append(path.parent.name)
    return alive


def running(folder, process):
    wait_for(lambda: (folder / "run/metrics.jsonl").is_file() and len(losses(folder / "run")) > 3, process)


def check(folder, way, workers, ranks):
    process = start(folder, way, workers, ranks)
    try:
        if way in ("bug", "user"):
            wait_for_end(process)
        else:
            running(folder, process)
            target = os.killpg if ranks == 1 else os.kill  # torchrun passes a signal on to its ranks
            target(process.pid, signal.SIGTERM if way == "term" else signal.SIGINT)
            if way == "twice":
                time.sleep(0.05)
                target(process.pid, signal.SIGINT)
        code, _, err = ends(process, SECONDS if ranks == 1 else 40)
        time.sleep(0.2)
        assert not children(process), "processes are left"
    finally:
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    expected = {"bug": 1, "user": 2}.get(way, 130)
    assert code == expected if ranks == 1 else code != 0, err[-2000:]  # torchrun has codes of its own
    if way == "user":
        assert "picture 7 is odd" in err and "Caught UserError" not in err
        if ranks == 1:
            assert err.strip().splitlines()[-1] == "error: picture 7 is odd" and "Traceback" not in err
    if way == "bug":
        assert "RuntimeError" in err and "planted" in err
    if way in ("once", "term"):
        assert states(folder / "run"), "it stopped after a step, and saved"


def wait_for_end(process):
    """Wait until a run that fails by itself has begun to end: its message is there or it is gone."""
    begun = time.monotonic()
    while process.poll() is None and time.monotonic() - begun < 60:
        time.sleep(0.1)


WAYS = ["bug", "user", "once", "twice", "term"]


def test_an_error_in_a_loader_process_ends_the_run(tmp_path):
    check(tmp_path, "user", 1, 1)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("way", WAYS)
def test_every_ending_is_soon(tmp_path, way, workers, ranks):
    check(tmp_path, way, workers, ranks)


@pytest.fixture
def small(tmp_path):
    """A disk of 400 KB."""
    place = tmp_path / "small"
    place.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(place)], capture_output=True
    )
    if done.returncode:
        pytest.skip("needs the right to mount a file system")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=False)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 1, 4])
def test_a_full_disk_is_one_line_with_the_newest_state(small, workers, ranks):
    process = start(small, "none", workers, ranks, "--training.keep_states=99")
    try:
        code, _, err = ends(process, 90)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert lines and "is full; the newest whole state is state-" in lines[0], err[-2000:]
    assert "Traceback" not in err or ranks > 1
    assert code == 2 or ranks > 1
    assert not list((small / "run").glob(".state-*.partial"))
    assert states(small / "run")[-1].name in lines[0] and not children(process)


@pytest.mark.long
@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("workers", [0, 2])
def test_lsun_trains_with_loader_processes(tmp_path, workers, ranks):
    lmdb = pytest.importorskip("lmdb")
    import io

    random = torch.Generator().manual_seed(0)
    for split, n in (("train", 2100), ("val", 50)):
        with lmdb.open(str(tmp_path / f"church_outdoor_{split}_lmdb"), map_size=2**26) as environment:
            with environment.begin(write=True) as transaction:
                for i in range(n):
                    content = io.BytesIO()
                    pixels = torch.randint(256, (12, 16, 3), dtype=torch.uint8, generator=random)
                    Image.fromarray(pixels.numpy()).save(content, "PNG")
                    transaction.put(f"{i:06}".encode(), content.getvalue())
    data = f"--data={{class_path: LSUN, init_args: {{root: {tmp_path}, category: church_outdoor, size: 8}}}}"
    options = [*OPTIONS, data, f"--training.workers={workers}", "--training.images=320",
               "--training.validate_every=160"]  # fmt: skip
    done = subprocess.run(
        command(tmp_path / "run", *options, config="configs/folder/glow.yaml", ranks=ranks), cwd=ROOT,
        env=ENVIRONMENT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / "run/model.safetensors").is_file()
    shutil.rmtree(tmp_path / "run")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__, "-m", "long or not long", "-q", "-s"]))
