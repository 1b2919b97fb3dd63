"""Files from elsewhere get nothing that a person has not asked for: memory, imports, other files."""

import json
import sys
import time
from pathlib import Path
from typing import get_args, get_type_hints

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from test_data import DATA_SETS
from test_fuzz import TEXTS, small_models
from torch import nn

import flows
from flows.cli import main
from flows.core.building import Excess, at_most_modules, build_in_memory, build_within
from flows.data import source as sources
from flows.data.folder import Folder
from flows.data.source import absolute_paths, can_instantiate, instantiate_data, remember
from flows.errors import CheckpointError, UserError
from flows.models.glow import Glow
from flows.storage.files import load_yaml
from train import main as train

_ = small_models  # the fixture "models"
ROOT = Path(__file__).parents[2]
FOLDER = "flows.data.folder.Folder"


def refused(capsys, run, *words):
    """Message of a command that ends with exit code 2 and one line, within twenty seconds."""
    capsys.readouterr()
    begun = time.monotonic()
    with pytest.raises(SystemExit) as ended:
        run(*words)
    err = capsys.readouterr().err.strip()
    assert ended.value.code == 2 and "Traceback" not in err and time.monotonic() - begun < 20
    return err.splitlines()[-1]


def altered(folder, target, weights=None, **changes):
    """Copy of a checkpoint with other arguments, whose fingerprint and checksum are those of its files."""
    target.mkdir()
    for file in folder.iterdir():
        (target / file.name).write_bytes(file.read_bytes())
    config = json.loads((target / "config.json").read_text()) | changes
    config["fingerprint"] = Glow._fingerprint(config, load_file(target / "model.safetensors"))
    (target / "config.json").write_text(json.dumps(config))
    return target


# Bounds before building ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"depth": 10**9}, "it asks for (more than [0-9],[0-9]+ modules|tensors of)"),
        ({"width": 20_000}, "it asks for tensors of [0-9,]+ numbers"),
        ({"width": 5}, "expected .*, got"),
        ({"image_shape": [3, 2**20, 2**20]}, "expected|it asks for"),
        ({"depth": 3}, "no such weight"),
        ({"colour": 1}, ""),
    ],
)
def test_a_config_is_held_against_the_weights(models, tmp_path, changes, reason):
    folder = altered(models / "glow", tmp_path / "odd", **changes)
    begun = time.monotonic()
    if not reason:
        assert flows.load(folder).image_shape == (1, 8, 8)  # an unknown key is passed to nobody
        return
    with pytest.raises(CheckpointError, match=f"does not fit the weights: .*({reason})"):
        flows.load(folder)
    assert time.monotonic() - begun < 10


def test_a_missing_argument_is_named(models, tmp_path):
    folder = altered(models / "glow", tmp_path / "odd")
    config = json.loads((folder / "config.json").read_text())
    del config["image_shape"]
    config["fingerprint"] = Glow._fingerprint(config, load_file(folder / "model.safetensors"))
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="missing a required argument: 'image_shape'"):
        flows.load(folder)


def test_what_a_constructor_creates_is_counted_before_it_is_there():
    weights = {"a": torch.zeros(10)}
    for size in ((2**20, 2**20), (2**40,)):
        for create in (torch.zeros, torch.randn, torch.empty, torch.ones):
            with pytest.raises(Excess, match="it asks for tensors of"):
                build_within(weights, lambda create=create, size=size: create(*size))
    for build in (
        lambda: torch.full((2**40,), 1.0),
        lambda: torch.eye(2**20),
        lambda: torch.arange(2**45),
        lambda: torch.linspace(0, 1, 2**45),
        lambda: torch.zeros(2**12).repeat(2**30),
        lambda: nn.Linear(2**20, 2**20),
        lambda: [nn.Linear(1000, 1000) for _ in range(10_000)],
    ):
        with pytest.raises(Excess, match="it asks for tensors of"):
            build_within(weights, build)
    with pytest.raises(Excess, match="more than 7 modules"), at_most_modules(7):
        nn.Sequential(*[nn.ReLU() for _ in range(8)])
    assert build_within(weights, lambda: nn.Linear(3, 4)).out_features == 4
    with pytest.raises(UserError, match="the model is too large for this machine, with .* GiB free"):
        build_in_memory(lambda: nn.Linear(2**30, 2**30))


def test_memory_is_named_before_it_is_taken(capsys):
    said = refused(capsys, main, ["sample", "scenes-nice", "--n", "1000000000"])
    assert "n: 1,000,000,000 codes: needs about" in said and "are free" in said


# Classes ------------------------------------------------------------------------------------------

EVIL = "from pathlib import Path\nPath(__file__).with_name('ran').write_text('')\n"
OWN = "from flows.data.digits import Digits\nclass Own(Digits):\n    pass\n"


def test_a_config_imports_nothing_without_a_word(tmp_path, monkeypatch, capsys):
    (tmp_path / "evilmodule.py").write_text(EVIL + OWN)
    (tmp_path / "ownmodule.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    model = "model: {class_path: Glow, init_args: {levels: 1, depth: 1, width: 4}}"
    for module in ("evilmodule", "ownmodule"):
        (tmp_path / f"{module}.yaml").write_text(f"data: {{class_path: {module}.Own}}\n{model}\n")
    options = ["--training.images=64", "--training.validation_images=8", "--folder", str(tmp_path / "run")]
    monkeypatch.setattr("sys.argv", ["train.py", "--config", "evilmodule.yaml", *options])
    said = refused(capsys, train)
    assert "evilmodule.Own is not a class of flows; --allow_import evilmodule allows to import it" in said
    for words in (
        ["evaluate", "scenes-nice", "--data", "evilmodule.Own"],
        ["steer", "find", "scenes-nice", "--method", "os.system"],
    ):
        assert "is not a class of flows" in refused(capsys, main, words)
    assert not (tmp_path / "ran").exists() and "evilmodule" not in sys.modules
    for option in (["--allow_import", "ownmodule"], ["--allow-import=ownmodule"]):
        words = ["train.py", "--config", "ownmodule.yaml", *option, *options, "--overwrite", "true"]
        monkeypatch.setattr("sys.argv", words)
        capsys.readouterr()
        train()
        assert "--allow_import: options and configs may import ownmodule" in capsys.readouterr().err
    assert "allow_import" not in (tmp_path / "run/config.yaml").read_text()


# Data ---------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "KNOWN", tmp_path / "home/known-data.txt")


@pytest.mark.parametrize("path", ["/dev/zero", "/proc", "/", "~"])
@pytest.mark.parametrize("verb", ["evaluate", "roundtrip"])
def test_a_checkpoint_opens_no_data_of_its_own_choice(models, tmp_path, home, capsys, path, verb):
    source = {"class_path": FOLDER, "init_args": {"path": path, "size": 8, "channels": 1, "bins": 17}}
    described = json.loads((models / "glow/config.json").read_text())["description"]
    folder = altered(models / "glow", tmp_path / "odd", description={**described, "source": source})
    said = refused(capsys, main, [verb, str(folder)])
    assert f"names Folder with path {path}, on which you have not trained here" in said
    assert f"--data Folder --data.path {path} --data.size 8" in said


def test_data_that_this_user_has_trained_on_are_known(home, tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    source = {"class_path": FOLDER, "init_args": {"path": str(tmp_path), "size": 8}}
    assert not can_instantiate(source)
    with pytest.raises(UserError, match="nothing is opened unless --data says so"):
        instantiate_data(source)
    remember(source)
    remember(source)
    assert can_instantiate(source) and isinstance(instantiate_data(source), Folder)
    other = {**source, "init_args": {**source["init_args"], "size": 16}}
    assert can_instantiate(other), "the path is what counts"
    elsewhere = {**source, "init_args": {"path": str(tmp_path.parent)}}
    assert not can_instantiate(elsewhere) and len(sources.KNOWN.read_text().split()) == 1


@pytest.mark.parametrize(
    ("name", "arguments", "known"),
    [
        ("flows.data.digits.Digits", {}, True),
        ("flows.data.torchvision_sets.MNIST", {"root": "~/.cache/flows", "size": 32}, True),
        ("flows.data.torchvision_sets.MNIST", {"root": "/srv/x"}, False),
        ("flows.data.hub.HubData", {"repo": "somebody/something"}, False),
        ("flows.data.shards.Shards", {"train": "pipe:id", "validation": "x", "test": "x"}, False),
        ("os.system", {}, False),
    ],
)
def test_what_a_description_may_name(home, name, arguments, known):
    assert can_instantiate({"class_path": name, "init_args": arguments}) == known


@pytest.mark.parametrize("kind", DATA_SETS, ids=lambda kind: kind.__name__)
def test_every_argument_that_is_a_path_is_known_as_one(kind):
    hints = get_type_hints(kind.__init__)
    paths = {name for name, hint in hints.items() if {str, Path} <= {hint, *get_args(hint)}}
    assert paths <= set(kind.path_arguments) or kind.__name__ in ("HubData", "Shards")


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Emoji", {"font": "/dev/zero"}), ("Scenes", {"cache": "/etc/x"}), ("Folder", {"path": "/proc"})],
)
def test_short_names_are_no_way_around(home, name, arguments):
    assert not can_instantiate({"class_path": f"flows.data.{name}", "init_args": arguments})
    assert can_instantiate({"class_path": "flows.data.Scenes", "init_args": {"cache": None, "test": 9}})
    with pytest.raises(UserError, match="test is 1,000,000,000, expected at most 1,000,000"):
        instantiate_data({"class_path": "flows.data.Scenes", "init_args": {"test": 10**9}})


def test_paths_are_stored_as_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("pictures").mkdir()
    for given, stored in (
        ("pictures", str(tmp_path / "pictures")),
        ("nowhere", "nowhere"),
        ("http://x/y", "http://x/y"),
        ("pictures/{0..3}.tar", str(tmp_path / "pictures/{0..3}.tar")),
    ):
        source = {"class_path": FOLDER, "init_args": {"path": given, "size": 8}}
        assert absolute_paths(source)["init_args"] == {"path": stored, "size": 8}


# YAML and options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("text", TEXTS, ids=range(len(TEXTS)))
def test_odd_yaml_is_read_or_refused_at_once(text):
    begun = time.monotonic()
    try:
        load_yaml(text)
    except UserError as error:
        assert "\n" not in str(error)
    assert time.monotonic() - begun < 1


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"a: &a [*a]", "refers to itself"),
        (TEXTS[-1], "values, expected at most 100,000"),
        (b"[" * 3000 + b"]" * 3000, "nested more than 50 deep"),
        ("a: b".encode("utf-16"), "in UTF-8"),
        (b"a: !!int x", "a value cannot be read"),
        (b"a: !!python/object/apply:os.system [id]", "could not determine a constructor"),
    ],
)
def test_the_limits_of_yaml_are_named(text, reason):
    with pytest.raises(UserError, match=reason):
        load_yaml(text)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--training.seed", str(2**64)], "--training.seed: expected a whole number"),
        (["--training.workers", "null"], "--training.workers: expected a whole number"),
        (["--training.lr", "-1e-3"], "--training.lr: expected a number above 0, got -1e-3"),
        (["--data.size", "0"], "size: expected a whole number above 0 and at most 8192 or a list of 2"),
        (["--data.size", "1000000"], "at most 8192"),
        (["--training.threads", "100000"], "training.threads: expected at most"),
        (["--model.depth", "1000000000"], "too large for this machine"),
        (["--training.batch", "2000000000", "--training.accumulate", "1000000000"], "the training split has"),
        (["--training", "true"], "training"),
        (["--data.path", "/dev/zero"], "expected a folder, a zip or a tar archive, got /dev/zero"),
    ],
)
def test_odd_settings_are_one_line(words, said, tmp_path, monkeypatch, capsys):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    config = ["--config", str(ROOT / "configs/folder/glow.yaml"), "--variant", "tiny"]
    given = [*config, "--data.path", str(tmp_path), "--folder", str(tmp_path / "run"), *words]
    monkeypatch.setattr("sys.argv", ["train.py", *given])
    assert said in refused(capsys, train)
    assert not (tmp_path / "run/metrics.jsonl").exists()


def test_a_config_of_another_kind_is_one_line(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.yaml").write_text("training: true\ndata: Digits\nmodel: Glow\n")
    monkeypatch.setattr("sys.argv", ["train.py", "--config", str(tmp_path / "a.yaml"), "--folder", "x"])
    assert "training: expected a mapping of options to values" in refused(capsys, train)
    assert "expected a number of at least 0" in refused(
        capsys, main, ["sample", "scenes-nice", "--temperature", "-1e30"]
    )
