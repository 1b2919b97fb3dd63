"""Facts of a training that the files of a checkpoint record: report, log, data record and card."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from verbs import bundled

import flows
from flows.core.hardware import hardware
from flows.data.digits import Digits
from flows.data.scenes import Scenes
from flows.errors import CheckpointError
from flows.opening import training_of
from flows.reports.card import training_paragraph
from flows.storage.trained import TrainingFacts, read_training

LOG = '{"images": 64, "seconds": 30.0}\n{"images": 128, "seconds": 61.5}\n{"images": 128, "x": null}\n'


def test_each_file_fills_in_what_better_ones_lack(tmp_path):
    assert read_training(tmp_path) == TrainingFacts()
    settings = {"batch": 8, "optimiser": "adam", "lr": 0.1, "decay": "cosine", "ema": 0.9, "seed": 0}
    training = {"images": 1_000_000, "seconds": 7230.0, "flows": "1", "torch": "2"}
    card = "\n".join(training_paragraph({"training": training}, {"training": settings}))
    (tmp_path / "README.md").write_text(card)
    assert read_training(tmp_path) == TrainingFacts(images=1_000_000, seconds=7200.0)  # minutes are rounded
    (tmp_path / "data.json").write_text('{"train": {"images": 500, "digest": "", "names": null}}')
    (tmp_path / "metrics.jsonl").write_text(LOG + '{"images": 2')  # killed while it wrote
    assert read_training(tmp_path) == TrainingFacts(images=128, seconds=61.5, split_images=500)
    (tmp_path / "report.json").write_text(json.dumps({"training": {"images": 96, "hardware": "H200"}}))
    assert read_training(tmp_path) == TrainingFacts(
        images=96, seconds=61.5, split_images=500, hardware="H200"
    )


def test_a_stream_has_no_number_of_images(tmp_path):
    (tmp_path / "data.json").write_text('{"train": {"images": 0, "digest": "x"}, "test": {"images": 9}}')
    assert read_training(tmp_path).split_images is None


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("report.json", "{"), ("report.json", '{"training": {"images": "many"}}'), ("report.json", "[]"),
        ("metrics.jsonl", "{}\n"), ("data.json", "3"),
    ],
)  # fmt: skip
def test_a_damaged_file_is_named(name, text, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(CheckpointError, match=rf"{name} was altered or cut off"):
        read_training(tmp_path)


def test_shipped_checkpoints_state_their_training(tmp_path):
    checkpoint = bundled("digits-glow")
    facts, stated = read_training(checkpoint), json.loads(Path(checkpoint, "report.json").read_text())
    assert facts.images == stated["training"]["images"] and facts.seconds == stated["training"]["seconds"]
    model = flows.load(checkpoint)
    assert training_of(checkpoint, model).split_images == Digits.training_images
    shutil.copytree(checkpoint, tmp_path / "published")
    for name in ("report.json", "metrics.jsonl"):
        (tmp_path / "published" / name).unlink()
    published = read_training(tmp_path / "published")
    assert published.images == facts.images and published.seconds == pytest.approx(facts.seconds, abs=30)


@pytest.mark.parametrize("data", [Digits(), Scenes(images=7, validation=1, test=1, cache=None)])
def test_the_stated_number_of_training_images_is_that_of_the_split(data):
    assert data.training_images == len(data.split("train"))


def test_the_processor_is_named():
    assert hardware(torch.device("cpu"), ranks=2) == hardware(torch.device("cpu"))
    assert hardware(torch.device("cpu")).endswith(" cores")


def test_a_data_set_that_has_changed_states_no_number(tmp_path):
    model = flows.load(bundled("digits-glow"))
    model.description = {
        **model.description,
        "source": {"class_path": "flows.data.Digits", "init_args": {"x": 1}},
    }
    assert training_of(str(tmp_path), model) == TrainingFacts()
