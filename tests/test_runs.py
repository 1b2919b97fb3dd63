"""A run loses nothing: what is odd in the data, in a state or in the folder costs a line, not the work."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_training import ROOT

import flows
from flows.data.base import ArraySplit, ImageData
from flows.training.checkpoint import states
from flows.training.log import read_metrics
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
    code, printed = train("--data", "test_runs.Scoreless", config=GAN)
    assert code == 0, printed
    assert "no evaluation has given a score yet" in printed
    assert flows.load(tmp_path / "run").image_shape == (3, 8, 8)
    looks = [line for line in metrics(tmp_path / "run") if "validation/kid" in line]
    assert looks and all(line["validation/kid"] is None for line in looks)


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
