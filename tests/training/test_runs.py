"""A run loses nothing: what is odd in the data, in a state or in the folder costs a line, not the work."""

import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from test_training import ROOT

import flows
from flows.cli import main as flows_main
from flows.data import source as sources
from flows.data.base import ArraySplit, ImageData
from flows.data.folder import Folder
from flows.errors import UserError
from flows.models.glow import Glow
from flows.storage.tensor_files import save_tensors
from flows.training import threads
from flows.training.checkpoint import states
from flows.training.data_record import changes, read_record, record_of, write_record
from flows.training.folder import clear
from flows.training.lock import LOCK_FILE, locked
from flows.training.log import read_metrics
from flows.training.start import check_classes, duration
from train import main

SMALL = [
    "--config", str(ROOT / "configs/folder/glow.yaml"), "--variant", "tiny", "--data.size", "8",
    "--model.levels", "2", "--training.log_every", "32", "--training.warmup", "0", "--training.batch", "16",
]  # fmt: skip


@pytest.fixture(name="pictures", scope="module")
def folder_of_pictures(tmp_path_factory):
    """300 small pictures of noise around a colour of their own."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for i in range(300):
        noise = random.integers(0, 60, (8, 8, 3)) + random.integers(0, 190, 3)
        Image.fromarray(noise.astype("uint8")).save(folder / f"{i:03}.png")
    return folder


@pytest.fixture(name="train")
def in_this_process(tmp_path, monkeypatch, capfd):
    """Function that runs train.py here; returns the exit code and what it printed."""

    def run(*options, folder="run", config=SMALL):
        words = ["train.py", *config, "--folder", str(tmp_path / folder), *map(str, options)]
        monkeypatch.setattr("sys.argv", words)
        capfd.readouterr()
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        return code, "".join(capfd.readouterr())

    return run


def metrics(folder):
    """Lines of the log as strict JSON, in which NaN and Infinity are no numbers."""

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


# A picture that the model holds impossible --------------------------------------------------------


@pytest.fixture(name="odd", scope="module")
def folder_with_an_odd_picture(tmp_path_factory):
    """Black pictures, and one of black and white noise held out."""
    folder = tmp_path_factory.mktemp("odd")
    random = np.random.default_rng(0)
    for i in range(60):
        name = f"{'test' if i < 4 else 'validation' if i < 8 else 'train'}/{i:03}.png"
        (folder / name).parent.mkdir(exist_ok=True)
        picture = 255 * random.integers(0, 2, (8, 8, 3)) if i == 7 else np.zeros((8, 8, 3))
        Image.fromarray(picture.astype("uint8")).save(folder / name)
    return folder


IMPOSSIBLE = [
    "--model.scale", "sigmoid", "--model.input_bound", "null", "--training.lr", "1e-2",
    "--training.ema", "0.9", "--training.images", "4800", "--training.validate_every", "1600",
    "--training.save_every", "1600",
]  # fmt: skip


def test_an_odd_picture_that_is_held_out_ends_no_run(odd, train, tmp_path):
    code, printed = train("--data.path", odd, *IMPOSSIBLE)
    assert code == 0, printed
    looks = [line for line in metrics(tmp_path / "run") if "validation/bits_per_dim" in line]
    unknown = [line for line in looks if line["validation/bits_per_dim"] is None]
    assert len(looks) == 3 and unknown, "the picture is not odd enough to test anything"
    assert all("validation/007.png" in line["validation/bits_per_dim_reason"] for line in unknown)
    assert "validation is unknown: the likelihood of validation/007.png is -inf" in printed
    assert len(list((tmp_path / "run/samples").iterdir())) == 3
    assert flows.load(tmp_path / "run").image_shape == (3, 8, 8)
    values = [line.get("validation/bits_per_dim") for line in read_metrics(tmp_path / "run/metrics.jsonl")]
    assert any(math.isnan(value) for value in values if value is not None)


def test_a_report_names_a_test_picture_that_the_model_holds_impossible(odd, train, tmp_path):
    shutil.copytree(odd, tmp_path / "pictures")
    (tmp_path / "pictures/validation/007.png").rename(tmp_path / "pictures/test/007.png")
    code, printed = train("--data.path", tmp_path / "pictures", *IMPOSSIBLE)
    assert code == 0, printed
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["likelihood"]["bits_per_dim"] is None
    assert "test/007.png" in report["likelihood"]["bits_per_dim_reason"]
    assert "unknown" in printed and "test/007.png" in (tmp_path / "run/README.md").read_text()
    assert report["roundtrip"], "the rest is there"


def test_a_report_says_that_a_test_picture_was_trained_on(train, tmp_path):
    (tmp_path / "one").mkdir()
    Image.new("RGB", (9, 9), (90, 30, 60)).save(tmp_path / "one/a.png")
    code, printed = train("--data.path", tmp_path / "one", "--training.images", "32")
    sentence = "test figures mean nothing: the test split is a.png alone, which was trained on"
    assert code == 0 and sentence in printed
    assert sentence[1:] in (tmp_path / "run/README.md").read_text()
    assert "a.png" in json.loads((tmp_path / "run/report.json").read_text())["test_note"]


# Always a model -----------------------------------------------------------------------------------


class Scoreless(ImageData):
    """A data set whose one held-out picture gives KID no number."""

    name, image_shape = "scoreless", (3, 8, 8)

    def split(self, name):
        generator = torch.Generator().manual_seed(0)
        n = 40 if name == "train" else 1
        return ArraySplit(torch.randint(256, (n, 3, 8, 8), dtype=torch.uint8, generator=generator))


GAN = [
    "--config", str(ROOT / "configs/scenes/dcgan.yaml"), "--model.channels", "[8]", "--model.size", "8",
    "--training.batch", "16", "--training.images", "96", "--training.validate_every", "48",
    "--training.log_every", "48",
]  # fmt: skip


def test_a_run_without_any_score_leaves_the_last_model(train, tmp_path):
    pytest.importorskip("torchmetrics")
    code, printed = train("--data", "test_runs.Scoreless", "--allow_import", "test_runs", config=GAN)
    assert code == 0, printed
    assert "no evaluation has given a score yet" in printed
    assert flows.load(tmp_path / "run").image_shape == (3, 8, 8)
    name = "validation/kid1_effnetlite0_t1"
    looks = [line for line in metrics(tmp_path / "run") if name in line]
    assert looks and all(line[name] is None for line in looks)


STATES = ["--training.images", "192", "--training.save_every", "64", "--training.keep_states", "9"]


@pytest.fixture(name="whole", scope="module")
def whole_run(pictures, tmp_path_factory):
    """A finished run with three states and two evaluations."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        more = ["--training.validate_every", "96"]
        words = ["--data.path", str(pictures), *STATES, *more, "--folder", str(folder)]
        patch.setattr("sys.argv", ["train.py", *SMALL, *words])
        main()
    return folder


def test_a_state_is_resumed_into_another_folder_with_a_model(whole, pictures, train, tmp_path):
    options = ["--data.path", pictures, *STATES, "--training.validate_every", "96"]
    for state in (states(whole)[0], states(whole)[-1]):
        code, printed = train(*options, "--resume", state, folder=state.name)
        assert code == 0, printed
        own, other = flows.load(tmp_path / state.name), flows.load(whole)
        assert own.fingerprint() == other.fingerprint()


def test_a_state_is_written_before_the_evaluation(pictures, train, tmp_path, monkeypatch):
    """An evaluation that fails costs nothing: the next session begins with it."""
    options = ["--data.path", pictures, "--training.images", "128", "--training.validate_every", "64",
               "--training.save_every", "64"]  # fmt: skip
    assert train(*options, folder="whole")[0] == 0

    def fail(*_):
        raise RuntimeError("planted")

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="planted"):
        patch.setattr("flows.training.objectives.likelihood.validate", fail)
        train(*options)
    assert [state.name for state in states(tmp_path / "run")] == ["state-000000000064"]
    code, printed = train(*options, "--resume", "latest")
    assert code == 0, printed
    clock = {"time", "seconds", "images_per_second"}
    logs = [
        [{key: value for key, value in line.items() if key not in clock} for line in metrics(tmp_path / name)]
        for name in ("run", "whole")
    ]
    assert logs[0] == logs[1]


def test_a_damaged_state_gives_way_to_the_one_before(whole, pictures, train, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    newest, before = states(tmp_path / "run")[-1], states(tmp_path / "run")[-2]
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    options = ["--data.path", pictures, *STATES, "--training.validate_every", "96"]
    code, printed = train(*options, "--resume", newest)
    assert code == 2 and f"the newest whole state beside it is {before.name}" in printed
    code, printed = train(*options, "--resume", "latest")
    assert code == 0, printed
    assert f"{newest.name} is damaged" in printed and f"going on from {before.name}" in printed
    assert flows.load(tmp_path / "run").fingerprint() == flows.load(whole).fingerprint()
    for state in states(tmp_path / "run"):
        (state / "manifest.json").unlink()
    code, printed = train(*options, "--resume", "latest")
    assert code == 2 and "there is no whole state" in printed


def test_a_start_that_failed_is_no_run(pictures, train, tmp_path, monkeypatch):
    def fail(*_):
        raise RuntimeError("planted")

    options = ["--data.path", pictures, "--training.images", "32"]
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="planted"):
        patch.setattr("flows.training.objectives.likelihood.bits_per_dim", fail)
        train(*options)
    assert Path(tmp_path / "run/config.yaml").is_file()
    code, printed = train(*options)
    assert code == 0, printed


# A run is what its settings say -------------------------------------------------------------------


def without_clock(folder):
    clock = {"time", "seconds", "images_per_second"}
    return [{key: value for key, value in line.items() if key not in clock} for line in metrics(folder)]


def test_pictures_that_came_and_went_are_named_when_a_run_is_resumed(pictures, train, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    options = ["--data.path", tmp_path / "pictures", "--training.save_every", "64"]
    assert train(*options, "--training.images", "64")[0] == 0
    more = [*options, "--training.images", "128", "--extend", "true", "--resume", "latest"]
    code, printed = train(*more)
    assert code == 0 and "the data are not those" not in printed
    Image.new("RGB", (9, 9)).save(tmp_path / "pictures/new.png")
    (tmp_path / "pictures/017.png").unlink()
    code, printed = train(*options, "--training.images", "192", "--extend", "true", "--resume", "latest")
    assert code == 0
    assert "the data are not those of the run so far: 1 picture came (new.png); 1 picture went (017.png)" in (
        printed
    )
    for picture in (tmp_path / "pictures").iterdir():
        Image.new("RGB", (8, 8)).save(picture)
    code, printed = train(*options, "--training.images", "256", "--extend", "true", "--resume", "latest")
    assert code == 0 and "the train images are others" in printed


def test_files_of_a_lazy_folder_that_changed_are_noticed(pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / "pictures")
    data = Folder(tmp_path / "pictures", size=8, in_memory=False)
    before = record_of(data)
    Image.new("RGB", (300, 300)).save(tmp_path / "pictures/017.png")
    (said, _) = changes(before, record_of(Folder(tmp_path / "pictures", size=8, in_memory=False)))
    assert "images are others" in said
    write_record(tmp_path, before)
    assert read_record(tmp_path) == before and changes(before, before) == []


def test_going_on_for_longer_has_a_way(whole, pictures, train, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    options = ["--data.path", pictures, *STATES[2:], "--training.validate_every", "96", "--resume", "latest"]
    code, printed = train(*options, "--training.images", "256")
    assert code == 2 and "--extend true goes on for longer" in printed
    code, printed = train(*options, "--training.images", "256", "--extend", "true")
    assert code == 0, printed
    assert metrics(tmp_path / "run")[-1]["images"] == 256
    assert "extend" not in (tmp_path / "run/config.yaml").read_text()


def test_micro_batches_may_change_where_they_change_rounding_only(whole, pictures, train, tmp_path):
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(states(tmp_path / "run")[-1])
    options = ["--data.path", pictures, *STATES, "--training.validate_every", "96", "--resume", "latest"]
    code, printed = train(*options, "--training.accumulate", "2")
    assert code == 0, printed
    for own, other in zip(without_clock(tmp_path / "run"), without_clock(whole), strict=True):
        assert own == pytest.approx(other, rel=1e-4, abs=1e-5)


def test_micro_batches_of_a_model_with_batch_norm_may_not_change(train):
    options = [*GAN, "--data", "test_runs.Few", "--objective.score", "swd", "--training.save_every", "48",
               "--allow-import=test_runs"]  # fmt: skip
    assert train(config=options)[0] == 0
    code, printed = train("--resume", "latest", "--training.accumulate", "2", config=options)
    assert code == 2 and "with batch norm it changes more than rounding" in printed


class Few(Scoreless):
    """A data set of sixteen held-out pictures."""

    def split(self, name):
        return ArraySplit(Scoreless.split(self, "train").images[: 40 if name == "train" else 16])


def test_variables_of_other_tools_change_nothing(whole, pictures, train, tmp_path, monkeypatch):
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "no")
    code, printed = train("--data.path", pictures, *STATES, "--training.validate_every", "96")
    assert code == 0, printed
    for name in ("GRADIENT_ACCUMULATION_STEPS=4", "MIXED_PRECISION=bf16"):
        assert f"ignored, because a run is what its settings say: ACCELERATE_{name}" in printed
    assert "DYNAMO" not in printed
    assert without_clock(tmp_path / "run") == without_clock(whole)


def test_equal_runs_are_equal_files(whole, pictures, train, tmp_path):
    code, printed = train("--data.path", pictures, *STATES, "--training.validate_every", "96")
    assert code == 0, printed
    for name in ("model.safetensors", "config.json", "data.json", "samples.png"):
        assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes(), name


def test_headers_of_equal_tensors_are_equal(tmp_path):
    metadata = {f"key {i}": "ü" * i for i in range(9)}
    contents = set()
    for _ in range(8):
        save_tensors(tmp_path / "a.safetensors", {"x": torch.zeros(3), "y": torch.ones(2).half()}, metadata)
        contents.add((tmp_path / "a.safetensors").read_bytes())
    assert len(contents) == 1
    with safe_open(tmp_path / "a.safetensors", "pt") as opened:
        assert opened.metadata() == metadata and torch.equal(opened.get_tensor("y"), torch.ones(2).half())


def test_the_path_of_the_data_is_found_from_any_folder(pictures, train, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures.parent)
    code, printed = train("--data.path", pictures.name, "--training.images", "32")
    assert code == 0, printed
    monkeypatch.chdir(tmp_path)
    stored = json.loads((tmp_path / "run/config.json").read_text())["description"]["source"]
    assert stored["init_args"]["path"] == str(pictures)


def test_weights_to_start_from_bring_their_sizes(whole, pictures, train, tmp_path):
    options = ["--data.path", pictures, "--training.images", "32", "--init", whole]
    plain = [word for word in SMALL if word not in ("--model.levels", "2", "--variant", "tiny")]
    code, printed = train(*options, config=plain, folder="again")
    assert code == 0, printed
    assert flows.load(tmp_path / "again").arguments() == flows.load(whole).arguments()
    code, printed = train(*options, "--model.depth", "5", config=plain, folder="deeper")
    assert code == 2 and "weights have other sizes" in printed


def test_a_run_without_progress_ends_when_patience_does(pictures, train, tmp_path):
    options = [
        "--data.path", pictures, "--training.lr", "1e-30", "--training.images", "3200", "--training.ema", "0",
        "--training.decay", "constant", "--training.validate_every", "64", "--training.patience", "128",
    ]  # fmt: skip
    code, printed = train(*options)
    assert code == 0, printed
    shown = metrics(tmp_path / "run")[-1]["images"]
    assert shown < 1000 and "ends: no better score since 64 images (training.patience)" in printed
    report = json.loads((tmp_path / "run/report.json").read_text())["training"]
    assert report["images"] == shown and shown - report["best_images"] == 128
    assert f"those after {report['best_images']:,} images" in (tmp_path / "run/README.md").read_text()
    code, printed = train(*options, "--resume", "latest")
    assert code == 0 and metrics(tmp_path / "run")[-1]["images"] == shown


def test_a_state_is_no_checkpoint_to_start_from(whole, pictures, train):
    code, printed = train("--data.path", pictures, "--init", states(whole)[-1])
    assert code == 2 and "this is a training state, which --resume reads" in printed


# Threads ------------------------------------------------------------------------------------------


def test_threads_are_what_others_leave_free(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "allowed_cpus", lambda: 8)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 8)
    for busy, expected in ((0.0, 8), (0.4, 8), (3.1, 5), (20.0, 1)):
        monkeypatch.setattr(threads, "busy_cpus", lambda _, busy=busy: busy)
        chosen, said = threads.choose_threads(None, None)
        assert chosen == expected and bool(said) == (expected < 8)
        assert threads.choose_threads(3, None) == (3, "")
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads.choose_threads(None, None) == (None, "")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"cpu.max": "150000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "200000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 2),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({}, None),
    ],
)
def test_a_container_has_the_cpus_of_its_quota(files, expected, tmp_path, monkeypatch):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert threads.allowed_cpus() == (cpus if expected is None else min(cpus, expected))


def test_a_busy_machine_is_noticed():
    """Another process that computes for a second keeps a CPU busy."""
    since = threads.Busy.now()
    code = "import time\nend = time.monotonic() + 1\nwhile time.monotonic() < end: pass"
    with subprocess.Popen([sys.executable, "-c", code]):
        pass
    assert 0.5 < threads.busy_cpus(since) <= os.cpu_count()


def test_the_time_of_this_process_is_not_that_of_others():
    since, begun = threads.Busy.now(), time.process_time()
    while time.process_time() - begun < 0.6:
        pass
    now = threads.Busy.now()
    seconds = (now.time - since.time) / os.cpu_count()
    assert now.own - since.own > 0.5 and seconds > 0.1
    assert threads.busy_cpus(since) <= (now.total - since.total - 0.5) / seconds + 0.2


# Folders ------------------------------------------------------------------------------------------


def test_a_folder_with_files_of_a_person_is_refused(pictures, train, tmp_path):
    own = tmp_path / "run"
    (own / "samples").mkdir(parents=True)
    for name in ("README.md", "samples.png", "samples/keep.txt"):
        (own / name).write_text("mine")
    for more in ([], ["--overwrite", "true"]):
        code, printed = train("--data.path", pictures, "--training.images", "32", *more)
        names = "README.md, samples.png, samples/keep.txt"
        assert code == 2 and f"that no run wrote and that one would replace ({names})" in printed
    assert {path.read_text() for path in own.rglob("*") if path.is_file()} == {"mine"}


def test_overwriting_removes_what_the_run_wrote_alone(pictures, train, tmp_path):
    options = ["--data.path", pictures, "--training.images", "32"]
    assert train(*options)[0] == 0
    run = tmp_path / "run"
    (run / "samples/keep.txt").write_text("mine")
    (run / "notes.md").write_text("mine")
    (run / "link.png").symlink_to(run / "samples.png")
    written = {path.relative_to(run) for path in run.rglob("*")}
    assert {Path("README.md"), Path("report.json"), Path("curves.png")} <= written
    code, printed = train(*options, "--overwrite", "true")
    assert code == 0, printed
    assert f"left in {run}, because no run wrote it: link.png, notes.md, samples/keep.txt" in printed
    clear(run)
    left = {path.relative_to(run).as_posix() for path in run.rglob("*")}
    assert left == {"samples", "samples/keep.txt", "notes.md", "link.png"}


def test_files_that_a_run_leaves_alone_are_no_obstacle(pictures, train, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/slurm.log").write_text("mine")
    code, printed = train("--data.path", pictures, "--training.images", "32")
    assert code == 0, printed
    assert (tmp_path / "run/slurm.log").read_text() == "mine"


def test_a_list_from_elsewhere_removes_nothing_outside(whole, pictures, train, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    outside = [tmp_path / "thesis.tex", tmp_path / "linked/b.txt"]
    for path in outside:
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
    (run / "link").symlink_to(tmp_path / "linked")
    (run / "alias.txt").symlink_to(tmp_path / "thesis.tex")
    names = [str(tmp_path / "thesis.tex"), "../thesis.tex", "link/b.txt", "alias.txt"]
    with open(run / "files.txt", "a") as opened:
        opened.writelines(f"{name}\n" for name in names)
    code, printed = train("--data.path", pictures, "--training.images", "32", "--overwrite", "true")
    assert code == 0, printed
    assert all(path.read_text() == "mine" for path in outside) and (run / "alias.txt").is_symlink()


def test_an_older_run_without_a_list_is_removed_whole(whole, pictures, train, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    (run / "files.txt").unlink()
    options = ["--data.path", pictures, *STATES, "--training.validate_every", "96"]
    assert train(*options, "--resume", "latest")[0] == 0
    listed = (run / "files.txt").read_text().split()
    assert {"model.safetensors", "config.json", "README.md", "report.json", "metrics.jsonl"} <= set(listed)
    clear(run)
    assert not [path for path in run.rglob("*") if path.is_file() and path.name != "data.json"]


def test_a_run_is_evaluated_on_its_own_data(pictures, train, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sources, "KNOWN", tmp_path / "home/known-data.txt")
    assert train("--data.path", pictures, "--training.images", "32")[0] == 0
    flows_main(["evaluate", str(tmp_path / "run"), "--images", "4", "--neighbours", "0"])
    assert "on 4 test images of folder" in capfd.readouterr().out
    sources.KNOWN.unlink()
    with pytest.raises(SystemExit):
        flows_main(["evaluate", str(tmp_path / "run")])
    assert "on which you have not trained here" in capfd.readouterr().err
    flows_main(["export", str(tmp_path / "run"), str(tmp_path / "exported")])


def test_what_a_run_started_from_may_be_gone_when_it_is_resumed(whole, pictures, train, tmp_path):
    shutil.copytree(whole, tmp_path / "base")
    options = ["--data.path", pictures, *STATES, "--init", tmp_path / "base"]
    assert train(*options, folder="again")[0] == 0
    shutil.rmtree(tmp_path / "base")
    shutil.rmtree(states(tmp_path / "again")[-1])
    code, printed = train(*options, "--resume", "latest", folder="again")
    assert code == 0, printed
    flows_main(["export", str(tmp_path / "again"), str(tmp_path / "exported")])


def test_two_runs_never_share_a_folder(pictures, train, tmp_path):
    with locked(tmp_path / "run"):
        code, printed = train("--data.path", pictures, "--training.images", "32")
        assert code == 2 and f"process {os.getpid()} on {platform.node()} trains here" in printed
    assert not (tmp_path / "run" / LOCK_FILE).exists()
    assert train("--data.path", pictures, "--training.images", "32")[0] == 0


@pytest.mark.parametrize(
    ("holder", "age", "free"),
    [
        ({"host": platform.node(), "process": 2**22 + 5, "started": 0.0}, 0, True),
        ({"host": platform.node(), "process": os.getpid(), "started": 5.0}, 60, True),
        ({"host": platform.node(), "process": os.getpid(), "started": 5.0}, 10, False),
        ({"host": "elsewhere", "process": 7, "started": 5.0}, 20, False),
        ({"host": "elsewhere", "process": 7, "started": 5.0}, 300, True),
        ("cut off", 20, False),
        ("cut off", 300, True),
    ],
    ids=[
        "ended",
        "number used again",
        "clock set",
        "elsewhere",
        "elsewhere, silent",
        "unknown",
        "unknown, silent",
    ],
)
def test_a_lock_that_was_left_is_taken_over(tmp_path, holder, age, free):
    lock = tmp_path / LOCK_FILE
    lock.write_text(json.dumps(holder)[: -1 if holder == "cut off" else None])
    os.utime(lock, (time.time() - age,) * 2)
    if free:
        with locked(tmp_path) as note:
            assert "was taken over" in note
            assert json.loads(lock.read_text())["process"] == os.getpid()
        assert not lock.exists()
        return
    with pytest.raises(UserError, match="trains here"), locked(tmp_path):
        pass
    assert lock.exists()


def test_a_lock_is_given_to_one_of_many(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom flows.training.lock import locked\n"
        "try:\n    with locked(Path(sys.argv[1])):\n        time.sleep(3)\n        print('had it')\n"
        "except ValueError as error:\n    print(error)\n"
    )
    (tmp_path / LOCK_FILE).write_text(json.dumps({"host": platform.node(), "process": 2**22, "started": 0.0}))
    words = [sys.executable, "-c", code, str(tmp_path)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate()[0] for process in started]
    assert sum("had it" in each for each in said) == 1, said


# Classes ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("classes", "given", "sentence"),
    [
        ("abc", 4, "model.num_classes: expected 3, got 4; Folder has 3 classes: a, b, c"),
        ("abc", 2, "model.num_classes: expected 3, got 2"),
        ("", 3, "20 of 20 images of Folder have no label: it needs a subfolder for each class"),
        ("abc.", 3, "images of Folder have no label"),
        ("abc", 3, ""),
    ],
)
def test_classes_are_compared_before_the_first_step(classes, given, sentence, tmp_path):
    for i in range(24):
        name = (classes or ".")[i % max(1, len(classes))]
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (i, 0, 0)).save(tmp_path / name / f"{i}.png")
    data = Folder(tmp_path, size=8, validation=0.1, test=0.1)
    model = Glow((3, 8, 8), levels=2, depth=1, width=4, num_classes=given, learned_top=True)
    if not sentence:
        check_classes(model, data)
        return
    with pytest.raises(UserError) as refused:
        check_classes(model, data)
    assert sentence.removeprefix("20 of 20 ") in str(refused.value)


@pytest.mark.parametrize(
    ("images", "rate", "expected"),
    [
        (256_000, 165, "about 26 minutes for 256,000 images (165 images/s)"),
        (100, 3, "about 33 seconds for 100 images (3 images/s)"),
        (6_000_000, 100, "about 17 hours for 6,000,000 images (100 images/s)"),
    ],
)
def test_the_duration_is_said_in_a_unit_that_fits(images, rate, expected):
    assert duration(images, rate) == expected
