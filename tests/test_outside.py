"""A package of one's own, installed beside flows: its classes are known wherever flows' own are.

The package is `tests/outside`; `docs/tutorials/add-a-model.md` shows its files.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "tests" / "outside"

WALK = """
import json, runpy, sys
from pathlib import Path

import flows
from flows.core import plugins
from flows.cli import main
from flows.editing.editor import open_editor
from flows.images import to_pillow
from flows.testing import broken_laws, cases_of

train, mine, finder = sys.argv[1:]
for config, images in ((mine, "1500"), (finder, "20000")):
    sys.argv = [train, "--config", config, "--training.images", images, "--data.images", "300"]
    runpy.run_path(train, run_name="__main__")
model = flows.load("runs/mine")
from outside.data import Dots
from outside.model import Mine, Reflection

laws = {name: broken_laws(case) for name, case in cases_of(Reflection).items()}
main(["roundtrip", "runs/mine", "--json", "roundtrip.json"])
main(["compare", "--models", "runs/mine", "--images", "test:4", "--perceptual", "none", "--out", "compared",
      "--inverters", "exact", "nearest:50", "Nearest"])
main(["steer", "find", "runs/mine", "--method", "Axes", "--method.axes", "2", "--n", "50"])
main(["steer", "apply", "runs/mine", "directions.safetensors", "--test", "2"])
main(["steer", "find", "runs/mine", "--scores", "row", "--source", "images", "--n", "300", "--output",
      "row.safetensors"])
main(["steer", "score", "runs/mine", "row.safetensors", "--predictor", "runs/finder", "--n", "40",
      "--out", "scored"])
editor = open_editor("runs/mine", directions=Path("directions.safetensors"))
history = editor.open(to_pillow(Dots().first("test", 1).images[0]), "dot")
moved = editor.move(history, {"axis0": 2.0})
print(json.dumps({
    "model": type(model).__name__,
    "is mine": type(model) is Mine,
    "listed": sorted(plugins.classes_of("flows.models", flows.models.LatentModel)),
    "laws": laws,
    "data": None if editor.data is None else type(editor.data).__name__,
    "groups": editor.groups,
    "written": sorted(path.name for path in Path().iterdir()),
}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """Folder in which pip has installed the package."""
    place = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-index", "--no-deps", "--no-build-isolation"]
    source = tmp_path_factory.mktemp("source") / "outside"
    subprocess.run(["cp", "-r", str(PACKAGE), str(source)], check=True)
    subprocess.run([*pip, "--target", str(place), str(source)], check=True, capture_output=True)
    return place


def run(installed, *words, **options):
    path = os.pathsep.join([str(installed), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, capture_output=True, text=True, **options
    )


def test_its_classes_are_known_everywhere(installed, tmp_path):
    (tmp_path / "walk.py").write_text(WALK)
    configs = [PACKAGE / "configs" / f"{name}.yaml" for name in ("mine", "finder")]
    done = run(installed, "walk.py", ROOT / "train.py", *configs, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["model"] == "Mine" and found["is mine"] and found["listed"] == ["Mine"]
    assert found["laws"] == {"five dimensions": {}}
    assert found["data"] == "Dots" and found["groups"]["other"] == ["axis0", "axis1"]
    rows = json.loads((tmp_path / "compared" / "table.json").read_text())["rows"]
    figures = {row["inverter"]: row for row in rows}
    assert figures["exact"]["bit_exact"] == 1.0
    assert 5 < figures["nearest:50"]["psnr"] < 40 and 5 < figures["Nearest"]["psnr"] < 40
    assert "steered.png" in found["written"]
    assert json.loads((tmp_path / "runs/mine/report.json").read_text())["evaluations"] >= 1
    assert json.loads((tmp_path / "runs/finder/report.json").read_text())["test"]["row"]["r2"] > 0.5
    assert json.loads((tmp_path / "scored/scores.json").read_text())["directions"]["row"]["effect"] > 0


def test_a_broken_package_is_left_out_with_a_line(installed, tmp_path):
    broken = tmp_path / "broken-1.dist-info"
    broken.mkdir()
    (broken / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (broken / "entry_points.txt").write_text("[flows.models]\nbroken = no_such_module\n")
    code = "import flows; print(flows.load('digits-glow').bins)"
    done = run(f"{installed}{os.pathsep}{tmp_path}", "-c", code, cwd=tmp_path)
    assert done.stdout.strip() == "17"
    assert "warning: flows.models 'broken' (no_such_module) is left out: ModuleNotFoundError" in done.stderr


def test_the_document_shows_its_files():
    text = (ROOT / "docs" / "tutorials" / "add-a-model.md").read_text()
    shown = re.findall(r"^`([\w./]+)`:\n\n```\w+\n(.*?)```", text, re.S | re.M)
    files = dict(shown)
    assert {"pyproject.toml", "outside/model.py", "configs/mine.yaml"} <= files.keys()
    for name, content in files.items():
        assert content == (PACKAGE / name).read_text(), f"docs/tutorials/add-a-model.md: {name} differs"
