"""Steering and dissection from the command line, on small untrained models: files, figures, mistakes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from flows.cli import main
from flows.data.scenes import Scenes
from flows.models.dcgan import DCGAN
from flows.models.glow import Glow
from flows.models.lia import LIA
from flows.models.nice import NICE
from flows.semantics.base import json_attributes
from flows.semantics.predictor import AttributePredictor
from flows.semantics.segmenter import UNetSegmenter

ROOT = Path(__file__).parents[2]
PARTS = ("steering", "dissection", "omissions")
SOURCE = {
    "class_path": "flows.data.scenes.Scenes",
    "init_args": {"size": 32, "images": 150, "validation": 10, "test": 40, "cache": None},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A Glow, a LIA, a DCGAN, a predictor that sees everything, and a segmenter; none of them trained."""
    root = tmp_path_factory.mktemp("tools")
    torch.manual_seed(0)
    data = Scenes(**SOURCE["init_args"])
    models = {
        "glow": Glow((3, 32, 32), levels=2, depth=1, width=8),
        "lia": LIA(
            (3, 32, 32), size=128, channels=[8, 8, 8, 8], critic_channels=[8, 8, 8, 8],
            encoder_channels=[8, 8, 8, 8], hidden=8, start="map", depth=1,
        ),
        "predictor": AttributePredictor(
            (3, 32, 32), json_attributes(data.all_attributes()), channels=[8, 8, 8], hidden=8
        ),
        "segmenter": UNetSegmenter((3, 32, 32), list(data.mask_classes), channels=[8, 8]),
        "dcgan": DCGAN((3, 32, 32), size=8, channels=[8, 8, 8]),
        "nice": NICE((3, 32, 32), couplings=2, hidden_layers=1, width=8),
    }  # fmt: skip
    models["glow"].initialise(data.split("train").first(16).images)
    with torch.no_grad():
        models["predictor"].network.head.bias[-len(data.all_attributes()) :] = 99.0
    for name, model in models.items():
        model.description = {"name": "scenes", "source": SOURCE}
        model.save_pretrained(root / name)
    return root


def run(*arguments):
    main([str(argument) for argument in arguments])


def refused(capsys, *arguments):
    """Run a command that must fail for the user's mistake; returns its one line."""
    with pytest.raises(SystemExit) as stopped:
        run(*arguments)
    assert stopped.value.code == 2
    return capsys.readouterr().err.strip().splitlines()[-1]


@pytest.fixture(scope="module")
def directions(folder):
    for name in ("glow", "lia"):
        run(
            "steer", "find", folder / name, "--predictor", folder / "predictor",
            "--scores", "daylight", "wood", "--n", 200, "--cache", folder / "cache",
            "--output", folder / f"{name}.safetensors", "--json", folder / f"{name}.json",
        )  # fmt: skip
    return folder


@pytest.mark.parametrize("name", ["glow", "lia"])
def test_find_apply_score(directions, name, tmp_path, capsys):
    folder, file = directions, directions / f"{name}.safetensors"
    written = json.loads((folder / f"{name}.json").read_text())["directions"]
    assert [each["name"] for each in written] == ["daylight", "wood"]
    assert written[0]["space"] == ("w" if name == "lia" else "z")
    assert len(list((folder / "cache").iterdir())) == 2

    run("steer", "apply", folder / name, file, "--test", 2, "--alphas", -1, 0, 1,
        "--output", tmp_path / "s.png", "--json", tmp_path / "s.json")  # fmt: skip
    result = json.loads((tmp_path / "s.json").read_text())
    assert result["alphas"] == [-1, 0, 1] and len(result["unmoved_psnr"]) == 2
    # An exact inverse brings every byte back; infinity is no JSON.
    assert (result["unmoved_psnr"] == [None, None]) == (name == "glow")
    with Image.open(tmp_path / "s.png") as sheet:
        assert sheet.height == 20 + 2 * 2 * 66

    run("steer", "score", folder / name, file, "--predictor", folder / "predictor", "--n", 20, "--steps", 1,
        "--without", "wood", "--format", "latex,pdf", "--out", tmp_path / "score")  # fmt: skip
    scores = json.loads((tmp_path / "score" / "scores.json").read_text())
    assert list(scores["directions"]) == ["daylight without wood"]
    assert len(scores["directions"]["daylight without wood"]["signed"]) == len(scores["scores"])
    written = {path.name for path in (tmp_path / "score").iterdir()}
    figures = {f"{stem}.{form}" for stem in ("matrix", "responses", "strips") for form in ("png", "pdf")}
    assert written == {"index.html", *figures, "scores.json", "table-directions.tex"}
    assert "http" not in (tmp_path / "score" / "index.html").read_text().split("base64")[0]

    run("steer", "score", folder / name, file, "--predictor", folder / "predictor", "--test", 20, "--steps",
        1, "--kid", 20, "--out", tmp_path / "real")  # fmt: skip
    scores = json.loads((tmp_path / "real" / "scores.json").read_text())["directions"]["wood"]
    assert len(scores["distances"]) == 3 and 0 <= scores["kept"] <= 1
    run("steer", "rank", tmp_path / "score" / "scores.json", tmp_path / "real" / "scores.json",
        "--out", tmp_path / "rank")  # fmt: skip
    entries = json.loads((tmp_path / "rank" / "ranking.json").read_text())["entries"]
    assert sorted(each["factor"] for each in entries) == ["daylight", "daylight", "wood"]

    bent = tmp_path / "bent.safetensors"
    run("steer", "disentangle", folder / name, file, "--names", "wood", "--predictor", folder / "predictor",
        "--n", 20, "--rounds", 1, "--output", bent)  # fmt: skip
    run("steer", "disentangle", folder / name, bent, "--without", "daylight", "--others", file, "--n", 20,
        "--output", tmp_path / "both.safetensors", "--json", tmp_path / "both.json")  # fmt: skip
    (written,) = json.loads((tmp_path / "both.json").read_text())["directions"]
    assert written["name"] == "wood without daylight" and 0 < written["evidence"]["kept"] <= 1

    run("steer", "levels", folder / name, file, "--predictor", folder / "predictor", "--n", 20,
        "--format", "latex", "svg", "--out", tmp_path / "levels")  # fmt: skip
    written = json.loads((tmp_path / "levels" / "levels.json").read_text())
    assert written["space"] == ("w+" if name == "lia" else "z") and len(written["levels"]["wood"]) >= 2
    assert {"levels.png", "levels.svg", "table-levels.tex"} <= {
        path.name for path in (tmp_path / "levels").iterdir()
    }


def test_methods_by_name(folder, tmp_path):
    found = {}
    for method, extra in {
        "MeanDifference": ["--source", "images", "--scores", "daylight", "--n", 60],
        "Displacement": ["--source", "images", "--scores", "brightness", "--method.images", 20],
        "Walk": ["--scores", "brightness", "--method.steps", 3],
        "JacobianDirections": ["--method.components", 2, "--method.codes", 1, "--method.iterations", 1],
    }.items():
        run("steer", "find", folder / "glow", "--method", method, *extra,
            "--predictor", folder / "predictor", "--cache", "null",
            "--output", tmp_path / "d.safetensors", "--json", tmp_path / "d.json")  # fmt: skip
        found[method] = json.loads((tmp_path / "d.json").read_text())["directions"]
    assert [len(each) for each in found.values()] == [1, 1, 1, 2]
    assert {"r2", "r2 level1", "share level2"} <= found["Displacement"][0]["evidence"].keys()
    for method in ("PrincipalComponents", "Factorise"):
        run("steer", "find", folder / "lia", "--method", method, "--method.components", 3, "--predictor",
            folder / "predictor", "--output", tmp_path / "d.safetensors")  # fmt: skip


TOOLS = sorted(
    path for name in ("steering", "dissection") for path in (ROOT / "configs" / name).glob("*.yaml")
)
SMALL = {
    "boundary": ["--n", 150, "--scores", "daylight"],
    "mean_difference": ["--n", 60, "--scores", "daylight"],
    "displacement": ["--method.images", 8, "--scores", "zoom"],
    "walk": ["--method.steps", 2, "--scores", "zoom"],
    "score_gradient": ["--n", 20, "--scores", "daylight"],
    "ridge": ["--n", 60, "--scores", "daylight"],
    "pca": ["--method.components", 2, "--method.n", 250],
    "factorise": ["--method.components", 2],
    "jacobian": ["--method.components", 2, "--method.codes", 1, "--method.iterations", 1],
    "dissect": ["--n", 40, "--units", 1, "--insert", "wall", "--artefact", "null", "--classes", "wall"],
    "omissions": ["--n", 40, "--images", 2, "--steps", 2],
}


@pytest.mark.parametrize("config", TOOLS, ids=lambda path: path.stem)
def test_the_configs_of_tools_run_and_name_their_command(folder, config, tmp_path):
    verb = {"steering": "steer find", "dissection": config.stem}[config.parent.name]
    command = f"flows {verb} checkpoints/"
    assert command in config.read_text() and f"--config {config.relative_to(ROOT)}" in config.read_text()
    semantic = ["--segmenter", folder / "segmenter"]
    if verb == "steer find":
        semantic = ["--predictor", folder / "predictor", "--cache", "null"]
    where = ["--output", tmp_path / "d.safetensors"] if verb == "steer find" else ["--out", tmp_path / "d"]
    run(*verb.split(), folder / "lia", "--config", config, *semantic, *SMALL[config.stem], *where)
    assert list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["glow", "lia"])
def test_dissect_and_omissions(folder, name, tmp_path):
    for source in ("samples", "images"):
        run("dissect", folder / name, "--segmenter", folder / "segmenter", "--n", 40, "--source", source,
            "--units", 1, "--classes", "wall", "sky", "--out", tmp_path / source)  # fmt: skip
        result = json.loads((tmp_path / source / "units.json").read_text())
        assert any(layer.startswith("code/") for layer in result["layers"])
        assert len(result["units"]) == sum(each["units"] for each in result["layers"].values())
        assert (tmp_path / source / "index.html").exists()
    run("dissect", folder / name, "--segmenter", folder / "segmenter", "--n", 40, "--units", 1,
        "--classes", "wall", "--order", "learned", "--insert", "wall",
        "--format", "latex,pdf", "--out", tmp_path / "more")  # fmt: skip
    result = json.loads((tmp_path / "more" / "units.json").read_text())
    assert result["insertions"][0]["label"] == "wall" and result["artefact"] is None
    written = {path.name for path in (tmp_path / "more").iterdir()}
    assert {"insertion-wall.png", "insertion-wall.pdf", "layers.pdf", "table-layers.tex"} <= written
    assert "table-insertion-wall.tex" in written
    run("omissions", folder / name, "--segmenter", folder / "segmenter", "--n", 40, "--images", 2,
        "--steps", 2, "--format", "latex,pdf", "--out", tmp_path / "omissions")  # fmt: skip
    result = json.loads((tmp_path / "omissions" / "omissions.json").read_text())
    assert result["fsd"]["mean"] >= 0 and (result["instances"] is None) == (name == "glow")
    picture = "energy.png" if name == "glow" else "instances.png"
    written = {path.name for path in (tmp_path / "omissions").iterdir()}
    assert {picture, picture.replace("png", "pdf"), "classes.pdf", "table-classes.tex"} <= written
    assert ("table-energies.tex" in written) == (name == "glow")


def class_under_the_brush(folder):
    """The class that the untrained segmenter finds most often in the brush, in test images and in samples."""
    segmenter = UNetSegmenter.from_pretrained(folder / "segmenter")
    dcgan = DCGAN.from_pretrained(folder / "dcgan")
    drawn = dcgan.decode_codes(dcgan.sample(20, seed=0))
    known = Scenes(**SOURCE["init_args"]).split("test").first(20).images / 255
    there = [segmenter.segment(images)[..., 8:16, 8:16].flatten(2).any(2).sum(0) for images in (drawn, known)]
    return segmenter.classes[int(torch.minimum(*there).argmax())]


@pytest.mark.long
def test_paint(folder, tmp_path):
    """Outside the brush and its margin a painted picture has the bytes it had."""
    segmenter = folder / "segmenter"
    label = class_under_the_brush(folder)
    nowhere = Image.new("L", (32, 32))
    nowhere.putpixel((10, 10), 255)
    nowhere.save(tmp_path / "nowhere.png")
    common = ["--segmenter", segmenter, "--json", tmp_path / "p.json", "--strokes", f"draw {label} 8 8 16 16"]
    for name, model, more, changed in (
        ("units", "glow", ["--test", 2, "--brush", "units", "--units", 3], [3]),
        ("code", "glow", [f"erase {label} {tmp_path / 'nowhere.png'}", "--test", 2, "--exemplars", 20], None),
        ("samples", "dcgan", ["--exemplars", 20, "--n", 2], None),
    ):
        run("paint", folder / model, *common, *more, "--output", tmp_path / f"{name}.png")
        pictures = json.loads((tmp_path / "p.json").read_text())["pictures"]
        assert len(pictures) == 2 and all(each["changed"] <= (8 + 4) ** 2 / 32**2 for each in pictures)
        assert changed is None or list(pictures[0]["layers"].values()) == changed
        columns = 3 if name == "code" else 2
        with Image.open(tmp_path / f"{name}.png") as opened:
            assert opened.size == (columns * 98, 20 + 2 * 98)


@pytest.mark.long
def test_atlas_does_each_part_once(folder, tmp_path):
    semantics = ["--predictor", folder / "predictor", "--segmenter", folder / "segmenter"]
    files = ["--out", tmp_path / "a", "--json", tmp_path / "a.json"]
    command = ["atlas", folder / "lia", *semantics, "--scores", "daylight", "--n", 120, *files]
    run(*command)
    assert json.loads((tmp_path / "a.json").read_text())["done"] == dict.fromkeys(PARTS, True)
    page = (tmp_path / "a" / "index.html").read_text()
    assert all(f"{part}/index.html" in page for part in PARTS) and page.count("data:image/png") >= 6
    (tmp_path / "a" / "omissions" / "done.json").unlink()  # as if it had been broken off
    run(*command)
    again = json.loads((tmp_path / "a.json").read_text())["done"]
    assert again == {"steering": False, "dissection": False, "omissions": True}
    run(*command, "--seed", 5)
    assert json.loads((tmp_path / "a.json").read_text())["done"] == dict.fromkeys(PARTS, True)


def test_atlas_leaves_out_what_a_model_has_not(folder, tmp_path, capsys):
    """NICE is fully connected: it has no spatial layer."""
    semantics = ["--predictor", folder / "predictor", "--segmenter", folder / "segmenter"]
    run("atlas", folder / "nice", *semantics, "--scores", "daylight", "--n", 120, "--out", tmp_path / "a",
        "--json", tmp_path / "a.json")  # fmt: skip
    assert json.loads((tmp_path / "a.json").read_text())["done"] == {"steering": True, "omissions": True}
    assert "NICE has no spatial layer" in capsys.readouterr().out


def test_mistakes_are_one_line(directions, capsys, tmp_path):
    folder, file = directions, directions / "glow.safetensors"
    predictor = ["--predictor", folder / "predictor"]
    paint = ["paint", folder / "glow", "--segmenter", folder / "segmenter", "--strokes"]
    for arguments, message in (
        (["steer", "find", folder / "glow", *predictor], "--scores: expected names of scores"),
        (["steer", "find", folder / "glow", *predictor, "--scores", "daylght", "--n", 20],
         "no score 'daylght'"),
        (["steer", "find", folder / "glow", "--predictor", folder / "segmenter", "--scores", "wood"],
         "expected a predictor: a class with the members of flows.semantics.Predictor"),
        (["steer", "find", folder / "glow", "--space", "w", *predictor], "no space 'w'"),
        (["steer", "find", folder / "glow", "--method", "Walk", "--scores", "sideways", *predictor],
         "there is no edit 'sideways'"),
        (["steer", "apply", folder / "lia", file], "they cannot be used with LIA"),
        (["steer", "apply", folder / "glow", file, "--names", "dark"], "there is no direction 'dark'"),
        (["steer", "apply", folder / "glow", file, "--levels", "level7"], "no level 'level7'"),
        (["dissect", folder / "glow", "--segmenter", folder / "segmenter", "--layers", "top"],
         "no layer 'top'"),
        (["dissect", folder / "nice", "--segmenter", folder / "segmenter", "--n", 8],
         "NICE has no spatial layer"),
        ([*paint, "colour window"], "expected draw|erase CLASS"),
        ([*paint, "draw window 0 0 40 4"], "expected left top right bottom within 32×32"),
        ([*paint, "draw window no.png"], "there is no file no.png"),
        ([*paint, "draw dragon 0 0 4 4"], "there is no class in 'draw dragon 0 0 4 4'"),
        (["paint", folder / "dcgan", *paint[2:], "erase banner", "--test", 1], "has no encoder"),
    ):  # fmt: skip
        assert message in refused(capsys, *arguments), arguments
    assert not list(tmp_path.iterdir())
