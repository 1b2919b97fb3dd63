"""The life of a run: resumed bit for bit, on one rank or two, refused where it must be."""

import io
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

import flows
from flows.data.digits import Digits
from flows.images import to_unit
from flows.training.augment import augment
from flows.training.batches import ShuffledBatches
from flows.training.checkpoint import save_state, states
from flows.training.ema import WeightAverage
from flows.training.folder import prepare_folder
from flows.training.loader import make_loader
from flows.training.loop import make_accelerator
from flows.training.optimiser import learning_rate
from flows.training.settings import Training

ROOT = Path(__file__).parents[2]
CONFIG = "configs/digits/glow.yaml"
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def command(folder: Path, *options: str, config: str = CONFIG, ranks: int = 1) -> list[str]:
    launcher = [sys.executable]
    if ranks > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(ranks)]
    arguments = ["--config", config, "--variant", "tiny", "--folder", str(folder), *options]
    return [*launcher, "train.py", *arguments]


def train(folder: Path, *options: str, **where) -> subprocess.CompletedProcess:
    return subprocess.run(
        command(folder, *options, **where), cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )


def losses(folder: Path) -> list[tuple]:
    """Everything a run logged that does not depend on the clock."""
    clock = {"time", "seconds", "images_per_second"}
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [tuple(item for item in json.loads(line).items() if item[0] not in clock) for line in lines]


def wait_for(condition, process: subprocess.Popen, seconds: float = 90) -> None:
    """Wait until `condition` holds while `process` still runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, f"the run ended first: {process.stderr.read()}"
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def write_shards(folder: Path) -> str:
    """Three tar files of 24 digits each; returns their pattern."""
    images = Digits().split("train").first(72).images
    for shard in range(3):
        with tarfile.open(folder / f"{shard}.tar", "w") as archive:
            for i in range(24 * shard, 24 * shard + 24):
                content = io.BytesIO()
                Image.fromarray(images[i, 0].numpy() * 15).save(content, format="PNG")
                member = tarfile.TarInfo(f"{i:04}.png")
                member.size = content.tell()
                archive.addfile(member, io.BytesIO(content.getvalue()))
    return str(folder / "{0..2}.tar")


@pytest.mark.long
def test_a_stream_trains_and_resumes_as_any_other_set(tmp_path):
    shards = write_shards(tmp_path)
    options = ["--data=Shards", f"--data.train={shards}", f"--data.validation={tmp_path / '0.tar'}",
               f"--data.test={tmp_path / '1.tar'}", "--data.size=8", "--data.channels=1",
               "--training.images=192", "--training.batch=16", "--training.log_every=16",
               "--training.save_every=96"]  # fmt: skip
    done = train(tmp_path / "whole", *options)
    assert done.returncode == 0, done.stderr
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "whole", half)
    shutil.rmtree(states(half)[-1])
    done = train(half, *options, "--resume=latest")
    assert done.returncode == 0, done.stderr
    assert len(losses(half)) > 5
    assert losses(half) == losses(tmp_path / "whole")


# Resume -----------------------------------------------------------------------------------------------

LONG = [
    "--training.images=3200", "--training.batch=16", "--training.log_every=48",
    "--training.save_every=320", "--training.validate_every=1600", "--training.augment=[shift]",
    "--training.accumulate=2",
]  # fmt: skip


@pytest.fixture(scope="module", name="whole")
def _whole(tmp_path_factory) -> Path:
    """A run that was never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    done = train(folder, *LONG)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.long
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_continues_bit_for_bit(whole, tmp_path, how):
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(folder, *LONG), cwd=ROOT, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # Tests that run behind a shell's `&` ignore the signal, and what they start would, too.
        preexec_fn=lambda: signal.signal(how, signal.SIG_DFL) if how != signal.SIGKILL else None,
    )  # fmt: skip
    wait_for(lambda: states(folder) and len(losses(folder)) > 9, process)
    process.send_signal(how)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == (-9 if how == signal.SIGKILL else 130), errors
    if how != signal.SIGKILL:
        assert errors.splitlines()[-1].startswith(f"stopped by {how.name}, saved")
    shown = len(losses(folder))
    assert shown < len(losses(whole))

    done = train(folder, *LONG, "--resume", "latest")
    assert done.returncode == 0, done.stderr
    assert losses(folder) == losses(whole)
    assert load_file(folder / "model.safetensors").keys() == load_file(whole / "model.safetensors").keys()
    for name, value in load_file(folder / "model.safetensors").items():
        assert torch.equal(value, load_file(whole / "model.safetensors")[name]), name


def grown_by(path: Path, lines: int):
    """Condition that a file has as many more lines than now."""

    def count() -> int:
        return path.read_bytes().count(b"\n") if path.is_file() else 0

    before = count()
    return lambda: count() >= before + lines


KILLS = int(os.environ.get("FLOWS_KILLS", "8"))
"""Number of times that a run is killed; 100 take a quarter of an hour."""


@pytest.mark.long
def test_a_run_that_is_killed_at_any_moment_ends_in_the_same_model(tmp_path):
    """While it starts, steps, evaluates, writes a state or exports; each session takes over the lock."""
    images = 640 * KILLS
    options = [f"--training.images={images}", "--training.batch=16", "--training.log_every=48",
               "--training.save_every=160", "--training.validate_every=320"]  # fmt: skip
    done = train(tmp_path / "whole", *options)
    assert done.returncode == 0, done.stderr
    choose, moments, met = random.Random(0), [], set()
    for number in range(KILLS):
        process = subprocess.Popen(
            command(tmp_path / "run", *options, "--resume=latest"), cwd=ROOT, env=ENVIRONMENT,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if number % 2:  # while it starts, or a little later
            time.sleep(choose.uniform(1, 8))
        else:  # around the moment at which it writes a state
            wait_for(grown_by(tmp_path / "run/metrics.jsonl", 4), process)
            time.sleep(choose.uniform(0, 0.5))
        process.kill()
        printed = process.communicate()[0]
        found = states(tmp_path / "run")
        moments.append(int(found[-1].name.removeprefix("state-")) if found else 0)
        met |= {word for word in ("was taken over", "from state-") if word in printed}
    done = train(tmp_path / "run", *options, "--resume=latest")
    assert done.returncode == 0, done.stderr
    print(f"newest states when it was killed: {moments}")
    assert met == {"was taken over", "from state-"} and moments == sorted(moments)
    assert losses(tmp_path / "run") == losses(tmp_path / "whole")
    assert not list((tmp_path / "run").glob(".*")), "something is left"
    for name in ("model.safetensors", "config.json", "data.json", "samples.png"):
        assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.long
def test_a_state_with_other_settings_is_refused(whole):
    done = train(whole, *LONG, "--resume", "latest", "--training.lr", "0.5")
    assert done.returncode == 2
    assert "started with other settings: training.lr was 0.002, is 0.5" in done.stderr


@pytest.mark.long
def test_a_tampered_state_is_refused_by_name(whole, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(whole, folder)
    for other in states(folder)[:-1]:  # a whole one would take its place
        shutil.rmtree(other)
    victim = states(folder)[-1] / "optimizer.bin"
    content = bytearray(victim.read_bytes())
    content[len(content) // 2] ^= 1
    victim.write_bytes(content)
    done = train(folder, *LONG, "--resume", "latest")
    assert done.returncode == 2
    assert re.search(r"optimizer\.bin was altered or cut off", done.stderr)
    assert len(done.stderr.strip().splitlines()) == 1
    (states(folder)[-1] / "manifest.json").unlink()
    assert "manifest.json is missing" in train(folder, *LONG, "--resume", "latest").stderr


def test_a_shipped_model_is_not_trained_over(tmp_path):
    """Without a training state, --resume latest starts from the beginning, but not over a finished run."""
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "model.safetensors").write_text("weights")
    with pytest.raises(ValueError, match="holds a run already"):
        prepare_folder(tmp_path, {}, "latest", None, overwrite=False)
    assert (tmp_path / "model.safetensors").read_text() == "weights"


def test_receipt_does_not_resume_or_wipe(tmp_path):
    prepare_folder(tmp_path, {"model": 1, "resume": "latest", "overwrite": True}, "latest", None, False)
    assert (tmp_path / "config.yaml").read_text() == "model: 1\n"


def test_saving_keeps_the_newest_and_gives_up_an_abandoned_course(tmp_path):
    accelerator = make_accelerator()
    for images in (100, 200, 300):
        save_state(accelerator, tmp_path, images, keep=2)
    assert [int(state.name[-3:]) for state in states(tmp_path)] == [200, 300]
    assert save_state(accelerator, tmp_path, 250, keep=2).is_dir()
    assert [int(state.name[-3:]) for state in states(tmp_path)] == [200, 250]


@pytest.mark.long
def test_a_signal_to_the_whole_group_saves_with_loader_workers(tmp_path):
    """Launchers signal the process group; the loader's workers must outlive it."""
    folder = tmp_path / "run"
    process = subprocess.Popen(
        command(folder, *LONG, "--training.workers=1"), cwd=ROOT, env=ENVIRONMENT,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: (folder / "metrics.jsonl").is_file() and len(losses(folder)) > 3, process)
    os.killpg(process.pid, signal.SIGTERM)
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 130 and "stopped by SIGTERM, saved" in errors, errors
    assert states(folder)


@pytest.mark.long
def test_an_existing_run_is_not_overwritten(whole):
    before = (whole / "model.safetensors").read_bytes()
    done = train(whole, *LONG, "--overwrite", "false")
    assert done.returncode == 2 and "holds a run already" in done.stderr
    assert (whole / "model.safetensors").read_bytes() == before


@pytest.mark.long
def test_what_a_run_leaves(whole):
    names = {path.name for path in whole.iterdir()}
    expected = {
        "config.yaml", "config.json", "model.safetensors", "README.md", "report.json", "metrics.jsonl",
        "samples.png", "curves.png", "roundtrip.png", "samples", "logs",
    }  # fmt: skip
    assert expected <= names
    report = json.loads((whole / "report.json").read_text())
    test_rows = [row for row in report["roundtrip"] if row["group"] == "test"]
    assert [row["bit_exact"] for row in test_rows] == [1.0, 1.0]
    terms = report["likelihood"]["terms"].values()
    assert sum(terms) == pytest.approx(report["likelihood"]["bits_per_dim"], abs=1e-4)
    assert (whole / "config.json").stat().st_mode & 0o044 == 0o044


def test_a_run_that_goes_non_finite_says_where_and_saves_nothing(tmp_path):
    done = train(
        tmp_path / "run", "--training.lr", "1e30", "--training.warmup", "0", "--training.batch", "16"
    )
    assert done.returncode == 2
    pattern = r"phase 'likelihood': \w+ became (nan|inf|-inf) in step \d+; nothing was saved"
    assert re.search(pattern, done.stderr), done.stderr
    assert states(tmp_path / "run") == []


# Ranks ------------------------------------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.multiprocess
@pytest.mark.parametrize("model", ["glow", "realnvp"])
def test_two_ranks_equal_one_with_the_joined_batch(tmp_path, model):
    """ActNorm's initialisation and RealNVP's batch norms included: both reduce over ranks."""
    options = ["--training.batch=32", "--training.images=160", "--training.log_every=32"]
    runs, images = {}, to_unit(Digits().split("test").first(8).images, 17)
    for ranks in (1, 2):
        folder = tmp_path / str(ranks)
        done = train(folder, *options, config=f"configs/digits/{model}.yaml", ranks=ranks)
        assert done.returncode == 0, done.stderr
        words = "1 process on cpu" if ranks == 1 else "2 processes on cpu"
        assert words in done.stdout + done.stderr
        with torch.no_grad():
            runs[ranks] = losses(folder), flows.load(folder).encode(images)
    (alone, code), (together, other) = runs[1], runs[2]
    assert len(alone) == 6 and [line[0] for line in alone] == [line[0] for line in together]
    for line, twin in zip(alone, together, strict=True):
        assert dict(line) == pytest.approx(dict(twin), rel=1e-4, abs=1e-5)
    # Not the parameters: a bias before a batch norm has no gradient but rounding, which Adam magnifies.
    assert torch.allclose(code, other, atol=1e-4)


@pytest.mark.long
@pytest.mark.multiprocess
@pytest.mark.parametrize(("ranks", "accumulate"), [((1, 2), (1, 1)), ((2, 1), (1, 1)), ((2, 1), (1, 4))])
def test_a_resumed_run_may_have_another_number_of_ranks(tmp_path, ranks, accumulate):
    """And another number of micro-batches: two ranks with 16 images each, then one with four times 8."""
    options = ["--training.images=256", "--training.batch=32", "--training.log_every=32",
               "--training.save_every=128", "--training.validate_every=128"]  # fmt: skip
    shares = [f"--training.accumulate={number}" for number in accumulate]
    done = train(tmp_path / "whole", *options, shares[0], ranks=ranks[0])
    assert done.returncode == 0, done.stderr
    half = tmp_path / "half"
    shutil.copytree(tmp_path / "whole", half)
    shutil.rmtree(states(half)[-1])
    done = train(half, *options, shares[1], "--resume=latest", ranks=ranks[1])
    assert done.returncode == 0, done.stderr
    for own, other in zip(losses(half), losses(tmp_path / "whole"), strict=True):
        assert dict(own) == pytest.approx(dict(other), rel=1e-4, abs=1e-6)


ENDLESS = """
import io, sys, tarfile
from PIL import Image

with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as archive:
    for i in range(2_000_000_000):
        content = io.BytesIO()
        Image.frombytes("L", (8, 8), i.to_bytes(4, "big") * 16).save(content, format="PNG")
        member = tarfile.TarInfo(f"{i}.png")
        member.size = len(content.getvalue())
        archive.addfile(member, io.BytesIO(content.getvalue()))
"""
"""Program that writes a tar of two thousand million pictures, a terabyte and more; each holds its number."""
SPY = """
import os
from pathlib import Path

from flows.training.objectives.likelihood import Likelihood


class Spy(Likelihood):
    def phases(self, model, parts):
        (phase,) = super().phases(model, parts)
        inner, log = phase.loss, Path(os.environ["SEEN"]) / f"{os.environ['RANK']}.txt"

        def loss(batch, generator, step):
            with log.open("a") as file:
                for key, image in zip(batch.keys.tolist(), batch.images, strict=True):
                    number = int.from_bytes(image[0, 0, :4].tolist(), "big")
                    print(key, number, file=file)
            return inner(batch, generator, step)

        phase.loss = loss
        return [phase]
"""
"""Objective of one's own that notes which images a rank was given."""


@pytest.mark.long
@pytest.mark.multiprocess
def test_two_ranks_share_a_stream_that_no_disk_holds(tmp_path, monkeypatch):
    """Every image once: no repeat, no gap, whichever rank has it; nothing of it is kept on disk."""
    (tmp_path / "endless.py").write_text(ENDLESS)
    (tmp_path / "spy.py").write_text(SPY)
    (tmp_path / "seen").mkdir()
    monkeypatch.setitem(ENVIRONMENT, "PYTHONPATH", str(tmp_path))
    monkeypatch.setitem(ENVIRONMENT, "SEEN", str(tmp_path / "seen"))
    source = f"pipe:{sys.executable} {tmp_path / 'endless.py'}"
    options = ["--allow_import=spy", "--objective=spy.Spy", "--data=Shards", f"--data.train={source}",
               f"--data.validation={source}", f"--data.test={source}", "--data.limit=32", "--data.size=8",
               "--data.channels=1", "--training.images=192", "--training.batch=16",
               "--training.accumulate=2"]  # fmt: skip
    done = train(tmp_path / "run", *options, ranks=2)
    assert done.returncode == 0, done.stderr
    texts = [(tmp_path / "seen" / f"{rank}.txt").read_text() for rank in range(2)]
    seen = [[tuple(map(int, line.split())) for line in text.splitlines()] for text in texts]
    assert [len(part) for part in seen] == [96, 96]
    assert all(key == number for part in seen for key, number in part)
    assert sorted(key for part in seen for key, _ in part) == list(range(192))
    assert sum(path.stat().st_size for path in tmp_path.rglob("*") if path.is_file()) < 5e6


def alike_on_two_ranks(tmp_path: Path, config: str, *options: str) -> list[Path]:
    """Folders of a run with two micro-batches and of one with two ranks, which logged the same."""
    same = ["--training.batch=16", "--training.images=96", "--training.log_every=16", *options]
    folders = [tmp_path / "1", tmp_path / "2"]
    for ranks, folder in enumerate(folders, 1):
        share = ["--training.accumulate=2"] if ranks == 1 else []
        done = train(folder, *same, *share, config=f"configs/{config}.yaml", ranks=ranks)
        assert done.returncode == 0, done.stderr
    alone, together = map(losses, folders)
    assert len(alone) >= 6
    for line, twin in zip(alone, together, strict=True):
        assert dict(line) == pytest.approx(dict(twin), rel=1e-3, abs=1e-4)
    return folders


@pytest.mark.long
@pytest.mark.multiprocess
@pytest.mark.parametrize("config", ["scenes/predictor", "scenes/segmenter", "scenes/dcgan-steerable"])
def test_two_ranks_equal_two_micro_batches_of_one(tmp_path, config):
    """The objectives Supervised and Steerable; the others are tested above and below."""
    alike_on_two_ranks(tmp_path, config)


@pytest.mark.long
@pytest.mark.multiprocess
def test_two_ranks_equal_one_where_activations_are_rebuilt(tmp_path):
    options = ["--training.batch=32", "--training.images=96", "--training.memory=reversible",
               "--training.guard_every=32", "--training.ema=0"]  # fmt: skip
    weights = {}
    for ranks in (1, 2):
        done = train(tmp_path / str(ranks), *options, ranks=ranks)
        assert done.returncode == 0, done.stderr
        weights[ranks] = load_file(tmp_path / str(ranks) / "model.safetensors")
        readings = [dict(line)["memory/gradient_cosine"] for line in losses(tmp_path / str(ranks))
                    if "memory/gradient_cosine" in dict(line)]  # fmt: skip
        assert len(readings) == 3 and min(readings) > 0.9999
    for name, alone in weights[1].items():
        assert torch.allclose(alone, weights[2][name], rtol=0, atol=1e-6), name


@pytest.mark.long
@pytest.mark.multiprocess
@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("lia", []),
        ("stylegan", ["--model.grows=true", "--objective.growing=[16,32,32]"]),
        ("pggan", ["--objective.growing=[16,32,32]"]),
        ("pggan", ["--objective.growing=[]"]),  # the colours of smaller sizes are never used
    ],
)
def test_two_ranks_of_a_gan_equal_two_micro_batches_of_one(tmp_path, model, options):
    """Not the joined batch: the minibatch deviation is that of the images side by side.

    BigGAN cannot: its spectral norms iterate once in every forward pass.
    """
    folders = alike_on_two_ranks(tmp_path, f"scenes/{model}", *options)
    weights, others = (load_file(folder / "model.safetensors") for folder in folders)
    for name, value in weights.items():
        if value.is_floating_point() and "mean" not in name and "var" not in name:
            assert torch.allclose(value, others[name], atol=1e-4), name


@pytest.mark.long
@pytest.mark.parametrize(("config", "images"), [("scenes/lia", 96), ("scenes/nice", 600)])
def test_a_run_of_the_command_line_goes_on(tmp_path, config, images):
    """Rates given in a config, an epsilon given there, an optimiser whose phase has not begun."""
    config, half = f"configs/{config}.yaml", [f"--training.save_every={images // 3}"]
    same = [f"--training.images={images}", f"--training.log_every={images // 6}", *half]
    assert train(tmp_path / "whole", *same, config=config).returncode == 0
    shutil.copytree(tmp_path / "whole", tmp_path / "half")
    shutil.rmtree(states(tmp_path / "half")[-1])
    (tmp_path / "half/model.safetensors").unlink()
    done = train(tmp_path / "half", *same, "--resume=latest", config=config)
    assert done.returncode == 0, done.stderr
    ends = [load_file(tmp_path / name / "model.safetensors") for name in ("whole", "half")]
    assert all(torch.equal(value, ends[1][name]) for name, value in ends[0].items())


@pytest.mark.long
def test_a_state_is_trained_on_in_another_memory_mode(whole, tmp_path):
    """Without conversion, and to the same weights up to rounding."""
    ends = {}
    for mode in ("plain", "reversible", "anchored", "checkpoint"):
        folder = tmp_path / mode
        shutil.copytree(whole, folder)
        shutil.rmtree(states(folder)[-1])
        done = train(folder, *LONG, "--resume=latest", f"--training.memory={mode}")
        assert done.returncode == 0, done.stderr
        with torch.no_grad():
            images = to_unit(Digits().split("test").first(4).images, 17)
            ends[mode] = flows.load(folder).encode(images)
    for mode, code in ends.items():
        assert torch.allclose(code, ends["plain"], atol=1e-3), mode
    assert torch.equal(ends["checkpoint"], ends["plain"])


@pytest.mark.long
def test_the_guard_goes_over_to_checkpoint_and_a_resumed_run_stays_there(tmp_path):
    """The limit is one that no inverse keeps."""
    strict = "import flows.training.guard as guard; guard.LARGEST_ERROR = 0.0; import train; train.main()"
    options = ["--training.memory=reversible", "--training.guard_every=64", "--training.images=256"]
    arguments = command(tmp_path / "run", *options)[2:]
    done = subprocess.run(
        [sys.executable, "-c", strict, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (done.stdout + done.stderr).count("switching to memory 'checkpoint'") == 1
    readings = [line for line in losses(tmp_path / "run") if "memory/reconstruction" in dict(line)]
    assert len(readings) == 1
    saved = torch.load(states(tmp_path / "run")[-1] / "custom_checkpoint_0.pkl")
    assert saved["fallback"] == "checkpoint"


# Pieces -----------------------------------------------------------------------------------------------


def take(n: int, **settings) -> list[list[int]]:
    stream = iter(ShuffledBatches(**settings))
    return [next(stream) for _ in range(n)]


def test_ranks_and_micro_batches_share_out_the_global_batch():
    whole = take(6, length=50, batch=16, seed=3)
    shares = [take(12, length=50, batch=16, seed=3, rank=r, world=2, accumulate=2) for r in (0, 1)]
    for i, batch in enumerate(whole):
        parts = [part for rank in (0, 1) for part in shares[rank][2 * i : 2 * i + 2]]
        assert sum(parts, []) == batch


def test_batches_start_where_they_stopped_and_cover_every_epoch():
    whole = take(9, length=50, batch=16, seed=3)
    assert take(4, length=50, batch=16, seed=3, start=5) == whole[5:]
    for epoch in (0, 1, 2):
        seen = sum(whole[3 * epoch : 3 * epoch + 3], [])
        assert len(set(seen)) == 48
    assert whole[:3] != whole[3:6]
    assert take(3, length=50, batch=16, seed=4) != whole[:3]


def test_batches_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="training.batch: 10 images do not divide into 4 ranks × 1"):
        ShuffledBatches(50, 10, 0, world=4)
    with pytest.raises(
        ValueError, match="training.batch: expected at most 50, the images of the training split, got 64"
    ):
        ShuffledBatches(50, 64, 0)


def test_a_loader_gives_the_images_of_the_sampler():
    split = Digits().split("train")
    batch = next(iter(make_loader(split, ShuffledBatches(len(split), 8, 0), workers=0)))
    assert torch.equal(batch.images, split.images[batch.keys])
    assert torch.equal(batch.labels, split.labels[batch.keys])


def test_learning_rate_follows_images():
    training = Training(images=1000, batch=10, lr=1.0, warmup=100, decay="cosine", final_lr=0.1)
    rates = [learning_rate(training, n) for n in range(0, 1001, 10)]
    assert rates[0] == pytest.approx(10 / 110)
    assert rates[10] == 1.0 and rates[-1] == pytest.approx(0.1)
    assert learning_rate(training, 550) == pytest.approx(0.55)
    assert all(a < b for a, b in zip(rates[:10], rates[1:11], strict=True))
    exponential = Training(images=1000, batch=10, lr=1.0, decay="exponential", final_lr=0.01)
    assert learning_rate(exponential, 500) == pytest.approx(0.1)
    assert learning_rate(Training(lr=0.3), 10**6) == 0.3


def test_each_stage_has_its_own_warm_up_and_decay():
    training = Training(images=1000, batch=10, lr=1.0, warmup=100, decay="cosine", final_lr=0.1)
    for span in ((0, 400), (400, math.inf)):
        length = min(span[1], 1000) - span[0]
        alone = Training(images=length, batch=10, lr=1.0, warmup=100, decay="cosine", final_lr=0.1)
        for images in range(0, length, 10):
            assert learning_rate(training, span[0] + images, span) == learning_rate(alone, images)


def test_weight_average_is_the_recursion_of_its_docstring():
    model = nn.Linear(2, 2)
    model.register_buffer("flag", torch.tensor(3))
    average = WeightAverage(model, decay=0.9)
    expected = model.weight.detach().clone()
    for n in range(30):
        with torch.no_grad():
            model.weight.add_(torch.randn(2, 2))
        model.flag += 1
        average.update_parameters(model)
        # torch copies the weights at the first update.
        d = 0.0 if n == 0 else min(0.9, (1 + n) / (10 + n))
        expected = d * expected + (1 - d) * model.weight.detach()
    assert torch.allclose(average.module.weight, expected, atol=1e-6)
    assert average.module.flag == 33


def test_augmentation_follows_the_key_and_keeps_bytes():
    images = Digits().split("train").first(40).images
    keys = list(range(40))
    every = ("flip", "shift", "zoom", "brightness")
    changed = augment(images, every, 5, keys).images
    assert torch.equal(changed[7:9], augment(images[7:9], every, 5, keys[7:9]).images)
    assert changed.dtype == torch.uint8 and not torch.equal(changed, images)
    flipped = augment(images, ("flip",), 5, keys).images
    mirrored = [torch.equal(flipped[i], images[i].flip(-1)) for i in keys]
    kept = [torch.equal(flipped[i], images[i]) for i in keys]
    assert all(a or b for a, b in zip(mirrored, kept, strict=True)) and 8 < sum(mirrored) < 32
    assert torch.equal(augment(images, (), 5, keys).images, images)


def test_shift_moves_whole_pixels_and_repeats_the_border():
    image = torch.zeros(1, 1, 20, 20, dtype=torch.uint8)
    image[..., 10, 10] = 255
    places = set()
    for key in range(60):
        moved = augment(image, ("shift",), 0, [key]).images[0, 0]
        row, column = divmod(int(moved.argmax()), 20)
        assert int(moved.sum()) == 255 and abs(row - 10) <= 2 and abs(column - 10) <= 2
        places.add((row, column))
    assert len(places) > 15


def test_zoom_shows_a_part_of_the_picture_and_brightness_its_values():
    ramp = torch.arange(32, dtype=torch.uint8).expand(1, 1, 32, 32) * 8  # a value is the place of its column
    spans, factors = set(), set()
    for key in range(40):
        row = augment(ramp, ("zoom",), 0, [key]).images[0, 0, 0].int()
        span = int(row[-1] - row[0]) / (8 * 31)
        assert 0.78 <= span <= 1 and (row.diff() >= 0).all()  # 80 to 100 % of the side, in its order
        spans.add(round(span, 2))
        light = augment(torch.full_like(ramp, 100), ("brightness",), 0, [key]).images
        assert light.unique().numel() == 1 and 80 <= int(light[0, 0, 0, 0]) <= 120
        factors.add(int(light[0, 0, 0, 0]))
    assert len(spans) > 10 and len(factors) > 20


def test_bf16_conditioners_keep_the_invertible_path_in_fp32():
    from flows import images as pixels
    from flows.models.glow import Glow

    torch.manual_seed(0)
    model = Glow((1, 8, 8), bins=17, levels=2, depth=4, width=16)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    x = pixels.to_unit(Digits().split("test").first(16).images, 17)

    def error() -> float:
        """The median image is compared: bf16 rounds in steps, at which single images may differ."""
        with torch.no_grad():
            return float((model.decode(model.encode(x)) - x).abs().amax((1, 2, 3)).median())

    single = error()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        code = model.encode(x)
        mixed = error()
    assert code.dtype == torch.float32
    assert not torch.equal(code, model.encode(x)), "the conditioners did not run in bf16"
    assert mixed <= 10 * max(single, 1e-6)
    assert math.isfinite(single)
