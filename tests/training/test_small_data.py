"""Trainings that know how much data they have: patience, recipes by number of pictures, cross-validation."""

import json

import pytest
import torch
import yaml
from PIL import Image

from flows.config import parse_experiment, resolve
from flows.data.base import ArraySplit, Attribute, ImageData
from flows.data.folds import folds_of
from flows.semantics.load import load_semantic_model
from flows.semantics.predictor import AttributePredictor
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.supervised import Supervised
from flows.training.session import Patience
from flows.training.settings import Training


class _Rows(ImageData):
    """Sixty images: `bright` is seen in them, `coin` was tossed, `depth` is their brightness as a number."""

    name = "rows"
    image_shape = (1, 8, 8)
    attributes = (Attribute("bright", "binary"), Attribute("coin", "binary"), Attribute("depth", "real"))

    def split(self, name):
        n, seed = {"train": (60, 0), "validation": (6, 1), "test": (20, 2)}[name]
        generator = torch.Generator().manual_seed(seed)
        level = torch.rand(n, generator=generator)
        noise = torch.randn(n, 1, 8, 8, generator=generator)
        images = (60 + 130 * level[:, None, None, None] + 15 * noise).clamp(0, 255).byte()
        coin = (torch.rand(n, generator=generator) < 0.5).float()
        return ArraySplit(images, attributes=torch.stack([(level > 0.5).float(), coin, level], 1))


# Patience -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patience", "images", "available", "shown", "best", "ends"),
    [
        (None, 10**6, 100, 10**5, 10, False),
        (500, 10**6, 100, 1000, 600, False), (500, 10**6, 100, 1100, 600, True),
        ("auto", 10_000, 100, 9_999, 10, False),  # each a hundred times: not more than that
        ("auto", 10_001, 100, 1_999, 1_000, False), ("auto", 10_001, 100, 2_000, 1_000, True),
        ("auto", 10_001, 100, 900, 100, False), ("auto", 10_001, 100, 1_000, 100, True),
        ("auto", 10_001, 100, 5_000, 0, False),  # no score yet
        ("auto", 10**6, None, 10**5, 10, False),  # a stream
    ],
)  # fmt: skip
def test_patience_ends_a_run_that_sees_its_images_too_often(patience, images, available, shown, best, ends):
    assert Patience(Training(images=images, patience=patience), available).ends(shown, best) is ends


# Recipes ------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path):
    """Config with recipes, of a folder with 12 pictures, 8 of them for training."""
    for i in range(12):
        target = tmp_path / "set" / ("train" if i < 8 else "validation" if i < 10 else "test")
        target.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (20 * i, 0, 0)).save(target / f"{i}.png")
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump(
            {
                "folder": str(tmp_path / "run"),
                "data": {
                    "class_path": "Folder",
                    "init_args": {"path": str(tmp_path / "set"), "size": 8},
                },
                "model": {"class_path": "Glow", "init_args": {"levels": 2, "depth": 1, "width": 4}},
                "training": {"images": 999, "augment": ["flip"]},
                "recipes": {
                    0: {"training.images": 100, "training.augment": ["flip", "zoom"]},
                    8: {"training.images": 200},
                    9: {"training.images": 300},
                },
                "variants": {"tiny": {"training.images": 7}},
            }
        )
    )
    return str(tmp_path / "mine.yaml")


@pytest.mark.parametrize(
    ("words", "images", "recipe"),
    [
        ([], 200, 8), (["--training.images", "5"], 5, 8), (["--variant", "tiny"], 7, 8),
        (["--recipe", "0"], 100, 0), (["--data.path", "elsewhere"], 999, None),
    ],
)  # fmt: skip
def test_the_recipe_is_that_of_the_number_of_pictures(config, words, images, recipe):
    parser, settings = parse_experiment(["--config", config, *words])
    assert (settings.training.images, settings.recipe) == (images, recipe)
    resolved = resolve(parser, settings)
    assert resolved["recipes"] == {} and resolved["recipe"] == recipe


def test_a_run_keeps_its_recipe_and_says_it(config, tmp_path, capsys):
    from flows.run import main

    typed = [
        "--config",
        config,
        "--training.images",
        "32",
        "--training.batch",
        "4",
        "--training.save_every",
        "16",
    ]
    main(typed)
    assert "recipe of the config for 8 pictures or more (--recipe)" in capsys.readouterr().out
    Image.new("RGB", (8, 8), (5, 0, 0)).save(tmp_path / "set/train/more.png")
    _, settings = parse_experiment([*typed, "--resume", "latest"])
    assert settings.recipe == 8 and parse_experiment(typed)[1].recipe == 9
    _, again = parse_experiment(["--config", str(tmp_path / "run/config.yaml")])
    assert again.training.images == 32


def test_a_recipe_that_there_is_not_is_one_line(config, capsys):
    with pytest.raises(SystemExit):
        parse_experiment(["--config", config, "--recipe", "5"])
    assert capsys.readouterr().err == "error: --recipe 5: this config's recipes are: 0, 8, 9\n"


# Cross-validation ---------------------------------------------------------------------------------


def test_every_image_is_held_out_once():
    parts = folds_of(_Rows(), 5, 100)
    held = [part.split("validation") for part in parts]
    assert [len(each) for each in held] == [14, 13, 13, 13, 13]
    everything = torch.cat([each.images for each in held])
    given = torch.cat([_Rows().split(name).images for name in ("train", "validation")])
    assert len(torch.unique(torch.cat([everything, given]), dim=0)) == len(given) == 66
    for part in parts:
        rest, out = part.split("train").images, part.split("validation").images
        assert len(rest) == 66 - len(out) and not (rest[:, None] == out[None]).flatten(2).all(2).any()
    assert folds_of(_Rows(), 5, 65) == [] and folds_of(_Rows(), 67, 100) == []


def test_cross_validation_measures_calibrates_and_says_what_was_not_learnt(tmp_path):
    torch.manual_seed(0)
    data = _Rows()
    attributes = [{**vars(each), "classes": []} for each in data.attributes]
    model = AttributePredictor((1, 8, 8), attributes, channels=[8, 8], hidden=16)
    training = Training(
        images=1500, batch=16, lr=5e-3, ema=0.9, validate_every=1500, save_every=1500, guard_every=10**6
    )
    fit(model, data, training, tmp_path, Supervised(folds=3), make_accelerator())
    stored = load_semantic_model(tmp_path)
    known = stored.description["validation"]
    assert stored.description["folds"] == 3 and known["bright"]["images"] == 66
    assert (
        known["bright"]["accuracy"] > 0.8 and known["depth"]["r2"] > 0.5 and known["coin"]["accuracy"] < 0.75
    )
    assert stored.not_learnt() == ["coin"]
    learnt = {score.name: score.is_learnt for score in stored.scores}
    assert learnt == {"bright": True, "coin": False, "depth": True}
    # A tossed coin has no probability but one half: predictions of it are calibrated on images not seen.
    assert known["coin"]["calibration"] < 0.25
    assert json.loads((tmp_path / "config.json").read_text())["description"]["folds"] == 3
