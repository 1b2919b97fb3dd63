"""Every config's tiny variant lives a whole life: build, train two steps, sample, invert, save, load."""

import math
import os
import re
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import yaml

import flows
from flows import images as pixels
from flows.commands.export import export
from flows.config import parse_experiment, resolve
from flows.errors import DataMissing
from flows.inversion.exact import invert_exactly
from flows.reports.run import write_report
from flows.semantics.base import SemanticModel
from flows.semantics.load import load_semantic_model
from flows.training.folder import write_receipt
from flows.training.log import read_metrics
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.likelihood import Likelihood

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(
    path.relative_to(ROOT)
    for path in (ROOT / "configs").rglob("*.yaml")
    # No data here: test_paper_configs; or options of tools: test_tools_cli.
    if path.parent.name not in ("paper", "steering", "dissection", "inversion")
)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """Folder of 64 pictures in four classes, with a mask each, as somebody may have it."""
    place = tmp_path_factory.mktemp("pictures")
    noise = torch.Generator().manual_seed(0)
    for i in range(64):
        image = torch.randint(256, (3, 40, 48), dtype=torch.uint8, generator=noise)
        for part, picture in (("images", image), ("masks", (image[:1] > 128).byte())):
            target = place / part / "abcd"[i % 4] / f"{i}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            pixels.to_pillow(picture).save(target)
    return place


def test_there_are_configs():
    assert len(CONFIGS) >= 6


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_header_names_the_command(config):
    header = (ROOT / config).read_text().split("\nfolder:")[0]
    assert header.startswith("# ") and "python train.py" in header
    figure = r"\d bits/dim|KID \d|accuracy \d|IoU \d|[Nn]ot measured yet"
    assert re.search(figure, header), "a config opens with its expected figure"


LIVES = [
    pytest.param(each, marks=pytest.mark.long) if each.parent.name == "folder" else each for each in CONFIGS
]
"""Configs; those for folders of pictures are the ones of scenes with other data."""


@pytest.mark.parametrize("config", LIVES, ids=str)
def test_tiny_life(config, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    words = ["--config", str(config), "--variant", "tiny", "--folder", str(tmp_path)]
    words += ["--data.path", str(pictures)] if config.parent.name == "folder" else []
    parser, settings = parse_experiment(words)
    experiment = parser.instantiate(settings)
    data, model = experiment.data, experiment.model
    try:
        data.split("train")
    except DataMissing as error:
        if os.environ.get("FLOWS_REQUIRE_ALL"):
            raise
        pytest.skip(str(error))
    model.description = {**asdict(data.description()), "source": None}
    accelerator = make_accelerator()
    outcome = fit(model, data, experiment.training, tmp_path, experiment.objective, accelerator)
    assert outcome.interrupted is None and outcome.progress.steps >= 2
    lines = read_metrics(tmp_path / "metrics.jsonl")
    assert all(math.isfinite(value) for line in lines for value in line.values())

    if isinstance(model, SemanticModel):
        write_receipt(tmp_path, resolve(parser, settings))
        semantic_model_lives(load_semantic_model(tmp_path), data, experiment.objective, tmp_path)
        return
    loaded = flows.load(tmp_path)
    assert loaded.image_shape == data.image_shape and loaded.bins == data.bins
    codes = loaded.sample_codes(2, generator=torch.Generator().manual_seed(0))
    labels = torch.zeros(2, dtype=torch.long) if loaded.num_classes else None
    with torch.no_grad():
        samples = loaded.decode(codes, labels=labels)
    assert samples.shape == (2, *data.image_shape) and samples.isfinite().all()
    test = data.split("test").first(4).images
    labels = torch.zeros(len(test), dtype=torch.long) if loaded.num_classes else None
    if loaded.spaces["z"].guarantee == "exact":
        inversion = invert_exactly(loaded, test, labels)
        assert all(given.bit_exact for given in inversion.certificates)
        assert torch.equal(inversion.reconstruction, pixels.reduce(test, loaded.bins))
    elif loaded.spaces["z"].guarantee == "exact-given-w":
        with torch.no_grad():
            w = loaded.encode(pixels.to_unit(test, loaded.bins), "w")
            assert (loaded.convert(loaded.convert(w, "w", "z"), "z", "w") - w).abs().max() < 1e-5
    else:
        with pytest.raises(ValueError, match="has no encoder"):
            loaded.encode(pixels.to_unit(test, loaded.bins))


def semantic_model_lives(semantic, data, objective, folder):
    measured = semantic.measure(data.split("test"), None)
    expected = data.mask_classes or [attribute.name for attribute in data.all_attributes()]
    assert set(measured.values) <= {*expected, *(attribute.name for attribute in data.all_attributes())}
    assert semantic.description["validation"].keys() <= {*expected, *(a.name for a in data.all_attributes())}
    report = write_report(folder, data, objective).values
    assert report["test"] == measured.values and (folder / "quality.png").stat().st_size > 1000
    export(folder, folder / "exported", half=True)
    exported = load_semantic_model(folder / "exported")
    assert exported.measure(data.split("test"), None).values.keys() == measured.values.keys()
    assert (folder / "exported" / "model.safetensors").stat().st_size < 0.6 * (
        (folder / "model.safetensors").stat().st_size
    )


def test_a_receipt_says_again_what_the_run_was(tmp_path, monkeypatch):
    """Null settings are part of it, even where the default is another value."""
    monkeypatch.chdir(ROOT)
    parser, settings = parse_experiment([
        "--config", "configs/scenes/predictor.yaml", "--folder", str(tmp_path), "--data.cache", "null",
    ])  # fmt: skip
    assert settings.training.validation_images is None and settings.data.init_args.cache is None
    resolved = resolve(parser, settings)
    write_receipt(tmp_path, resolved)
    again = resolve(*parse_experiment(["--config", str(tmp_path / "config.yaml")]))
    assert {**again, "config": None} == {**resolved, "config": None}


def test_a_config_of_another_data_set_changes_one_line(tmp_path, monkeypatch):
    """README's promise: the same experiment on a folder of pictures, by the data line alone."""
    monkeypatch.chdir(ROOT)
    colour = torch.Generator().manual_seed(0)
    for i in range(40):
        picture = torch.randint(256, (3, 40, 48), dtype=torch.uint8, generator=colour)
        pixels.to_pillow(picture).save(tmp_path / f"{i}.png")
    config = yaml.safe_load((ROOT / "configs/folder/glow.yaml").read_text())
    config["data"] = {"class_path": "Folder", "init_args": {"path": str(tmp_path), "size": 32}}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(config))
    arguments = ["--config", str(tmp_path / "mine.yaml"), "--variant", "tiny", "--training.batch", "8"]
    parser, settings = parse_experiment([*arguments, "--folder", str(tmp_path / "run")])
    experiment = parser.instantiate(settings)
    assert experiment.model.image_shape == (3, 32, 32)
    training = experiment.training
    training.images = 16
    fit(experiment.model, experiment.data, training, tmp_path / "run", Likelihood(), make_accelerator())
    assert flows.load(tmp_path / "run").image_shape == (3, 32, 32)
