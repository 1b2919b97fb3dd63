"""The wheel in an empty environment and an empty folder: no clone, and only what it asks for."""

import json
import os
import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from PIL import Image

ROOT = Path(__file__).parents[1]
FRAME = {"torch", "torchvision", "numpy", "tensorboard", "einops", "accelerate"}
BESIDE = {"jsonargparse", "pyyaml", "safetensors", "pillow"}


@pytest.fixture(scope="module", name="wheel")
def _wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("exact_flows-*.whl")
    return wheel


def stated(wheel: Path) -> list[Requirement]:
    """Requirements in the metadata of the wheel."""
    with zipfile.ZipFile(wheel) as opened:
        name = next(name for name in opened.namelist() if name.endswith(".dist-info/METADATA"))
        text = opened.read(name).decode()
    return [Requirement(line) for line in re.findall(r"^Requires-Dist: (.+)$", text, re.M)]


def needed(requirements: list[Requirement], extra: str) -> set[str]:
    """Distributions that an installer would bring, here installed ones, with all that they need."""
    found: set[str] = set()
    todo = [(each, {"extra": extra}) for each in requirements]
    while todo:
        requirement, environment = todo.pop()
        if requirement.marker and not requirement.marker.evaluate(environment):
            continue
        name = canonicalize_name(requirement.name)
        try:
            inner = distribution(name).requires or []
        except PackageNotFoundError:  # for another platform, or optional to torch
            continue
        new = {"", *requirement.extras} if name not in found else requirement.extras
        found.add(name)
        todo += [(Requirement(text), {"extra": each}) for text in inner for each in new]
    return found


def install(wheel: Path, extra: str, place: Path) -> Path:
    """Create an environment with what the wheel asks for, by links to the files that are installed here.

    Returns the folder of its programs. Nothing else that is installed here can be imported in it.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
    site = next(place.glob("lib/python*/site-packages"))
    for name in needed(stated(wheel), extra):
        found = distribution(name)
        for top in {
            file.parts[0] for file in found.files or [] if file.parts[0] not in ("..", "__pycache__")
        }:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(found.locate_file(top))))
    run = [sys.executable, "-m", "pip", "--python", str(place / "bin" / "python"), "install", "--quiet",
           "--no-deps", "--no-index", str(wheel)]  # fmt: skip
    subprocess.run(run, check=True, capture_output=True)
    return place / "bin"


@pytest.fixture(scope="module", name="bare")
def _bare(wheel, tmp_path_factory):
    return install(wheel, "", tmp_path_factory.mktemp("bare") / "venv")


@pytest.fixture(scope="module", name="training")
def _training(wheel, tmp_path_factory):
    return install(wheel, "train", tmp_path_factory.mktemp("training") / "venv")


def call(program: Path, *words: str, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run a program of an environment in a folder, with a home that has nothing."""
    home = cwd.parent / "home"
    home.mkdir(exist_ok=True)
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FLOWS", "COV"))
    }
    done = subprocess.run(
        [program, *words], cwd=cwd, capture_output=True, text=True, env={**clean, "HOME": str(home)}
    )
    assert done.returncode == code, done.stderr
    return done


@pytest.fixture(name="empty")
def _empty(tmp_path):
    folder = tmp_path / "empty"
    folder.mkdir()
    return folder


def test_a_plain_installation_asks_for_the_frame_and_four_packages(wheel):
    hard = {canonicalize_name(each.name) for each in stated(wheel) if each.marker is None}
    assert hard == FRAME | BESIDE
    extras = {str(each.marker).split('"')[1] for each in stated(wheel) if each.marker is not None}
    assert {"train", "studio", "data", "metrics", "bench", "dev"} <= extras


def test_what_is_imported_without_being_named_comes_with_what_is():
    """Packages that come with accelerate and jsonargparse[signatures]."""
    accelerate = {canonicalize_name(Requirement(text).name) for text in distribution("accelerate").requires}
    assert {"psutil", "huggingface-hub", "packaging"} <= accelerate
    signatures = {
        each.name
        for each in map(Requirement, distribution("jsonargparse").requires)
        if each.marker and each.marker.evaluate({"extra": "signatures"})
    }
    assert "docstring-parser" in signatures


def test_the_wheel_has_configs_models_help_and_types_and_no_more(wheel):
    with zipfile.ZipFile(wheel) as opened:
        names = set(opened.namelist())
        for path in (ROOT / "configs").rglob("*.yaml"):
            assert opened.read(f"flows/{path.relative_to(ROOT).as_posix()}") == path.read_bytes()
        for name in ("digits-glow", "fashion-glow", "fashion-predictor"):
            for file in ("config.json", "model.safetensors", "README.md"):
                path = ROOT / "checkpoints" / name / file
                assert opened.read(f"flows/checkpoints/{name}/{file}") == path.read_bytes()
    assert {"flows/py.typed", "flows/checkpoints/index.json", "flows/commands/help.json"} <= names
    assert {f"flows/commands/completions/flows.{shell}" for shell in ("bash", "zsh")} <= names
    tops = {name.split("/")[0] for name in names}
    assert len(tops) == 2 and all(top == "flows" or top.endswith(".dist-info") for top in tops)
    assert wheel.stat().st_size < 8e6


def test_a_plain_installation_lists_opens_and_encodes(bare, empty):
    listed = call(bare / "flows", "models", cwd=empty).stdout
    assert "fashion-glow\n    Glow (flow, exact inverse)" in listed and str(bare.parent) in listed
    assert "not published yet; in a clone of flows" in listed
    assert "digits/glow" in call(bare / "flows", "configs", cwd=empty).stdout
    Image.radial_gradient("L").resize((32, 32)).save(empty / "mine.png")
    done = call(bare / "flows", "encode", "fashion-glow", "mine.png", cwd=empty)
    assert "mine.png: bit-exact" in done.stdout
    call(bare / "flows", "decode", "fashion-glow", "codes.safetensors", "--output", "back", cwd=empty)
    (back,) = (empty / "back").glob("*.png")
    with Image.open(back) as same, Image.open(empty / "mine.png") as given:
        assert same.convert("L").tobytes() == given.tobytes()
    call(bare / "flows", "sample", "digits-glow", "--n", "4", cwd=empty)
    code = "import flows; print(len(flows.load('fashion-glow').sample(2)), flows.list_models())"
    assert call(bare / "python", "-c", code, cwd=empty).stdout == "2 ['digits-glow', 'fashion-glow']\n"
    for name in ("matplotlib", "sklearn", "rich", "gradio"):
        call(bare / "python", "-c", f"import {name}", cwd=empty, code=1)


def test_what_is_missing_is_one_line_with_the_extra(bare, empty):
    for words, said in (
        (["evaluate", "digits-glow"], "flows evaluate needs matplotlib, rich, scikit-learn"),
        (["train", "--config", "digits/glow"], "flows train needs"),
        (["roundtrip", "fashion-glow"], "flows roundtrip needs"),
        (["studio"], "the studio needs gradio"),
        (["sample", "scenes-glow"], "scenes-glow is not in this installation, and not published yet"),
        (["sample", "fashion-glw"], "Did you mean 'fashion-glow'?"),
    ):
        (line,) = call(bare / "flows", *words, cwd=empty, code=2).stderr.splitlines()
        assert said in line
        if "needs" in said:
            extra = "studio" if words == ["studio"] else "train"
            assert f'pip install "exact-flows[{extra}]"' in line
    code = "from flows.data import Digits; Digits().split('test')"
    assert "scikit-learn is not installed; run" in call(bare / "python", "-c", code, cwd=empty, code=1).stderr
    assert list(empty.iterdir()) == []


@pytest.mark.long
def test_with_train_it_trains_digits_and_evaluates(training, empty):
    done = call(training / "flows", "train", "--config", "digits/glow", cwd=empty)
    assert "bit for bit" in done.stdout
    assert [path.name for path in empty.iterdir()] == ["checkpoints"]
    words = ["evaluate", "checkpoints/my-digits", "--json", "figures.json"]
    call(training / "flows", *words, cwd=empty)
    assert json.loads((empty / "figures.json").read_text())["bits_per_dim"] < 2.4
