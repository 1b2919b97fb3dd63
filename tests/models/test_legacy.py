"""Files of earlier versions: shipped checkpoints are the same functions, kept files give the same bytes.

`legacy/` was written by the code before `Codes` and `flows.errors`; nothing in it is ever written anew.
"""

import hashlib
import json
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from flows.config import experiment_parser
from flows.data.scenes import Scenes
from flows.data.source import instantiate_data
from flows.editing.records import load_history
from flows.inversion import decode_exactly, load_codes, load_record, render_record
from flows.inversion.records import digest_of
from flows.models import LatentModel
from flows.opening import load_any
from flows.semantics import Predictor
from flows.steering import load_directions

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests/models/legacy"
EXPECTED = json.loads((KEPT / "expected.json").read_text())


IMAGES = load_file(KEPT / "images.safetensors")
SHIPPED_RUNS = sorted((ROOT / "checkpoints").glob("*/config.yaml"))


def same(images, name):
    """Equal bytes; on another processor a value on the edge of two bytes may fall into the other."""
    difference = (images.int() - IMAGES[name].int()).abs()
    return int(difference.max()) <= 1 and float((difference > 0).double().mean()) < 0.002


def opened(name):
    return load_any(str(ROOT / "checkpoints" / name), "cpu")


@pytest.mark.parametrize("name", EXPECTED["models"])
def test_a_shipped_checkpoint_is_the_same_function(name):
    model, expected = opened(name), EXPECTED["models"][name]
    assert model.fingerprint() == expected["fingerprint"]
    with torch.no_grad():
        if isinstance(model, LatentModel):
            labels = torch.zeros(2, dtype=torch.long) if model.num_classes else None
            codes = model.sample(2, "z", 5, labels=labels)
            values = model.decode_codes(codes)
            assert same(model.decode_bytes(codes), f"sample.{name}")
        else:
            image = torch.rand(1, *model.image_shape, generator=torch.Generator().manual_seed(5))
            values = model.predict(image) if isinstance(model, Predictor) else model.probabilities(image)
    some = values.nan_to_num().flatten()[:: max(1, values.numel() // 8)][:8]
    torch.testing.assert_close(some, torch.tensor(expected["values"]), rtol=1e-5, atol=1e-6)


def test_a_code_file_decodes_to_the_same_bytes():
    model = opened(EXPECTED["codes"]["model"])
    contents = load_codes(KEPT / "codes.safetensors", model)
    assert contents.names == ["a.png", "b.png"] and contents.codes.labels is None
    images = decode_exactly(model, contents.codes, [each.precision for each in contents.certificates])
    assert digest_of(images) == EXPECTED["codes"]["images"]
    assert torch.equal(images, Scenes(test=4, cache=None).split("test").images[:2])


@pytest.mark.parametrize("name", EXPECTED["records"])
def test_a_record_renders_the_same_bytes(name):
    expected = EXPECTED["records"][name]
    model = opened(expected["model"])
    record = load_record(KEPT / f"{name}.safetensors", model)
    assert (record.method, record.digest) == (expected["method"], expected["digest"])
    images = render_record(model, record)
    assert same(images, f"record.{name}")
    if name == "record-exact":
        assert digest_of(images) == expected["digest"]
    assert record.sources[1].box == (8, 0, 56, 48)


@pytest.mark.parametrize("name", EXPECTED["histories"])
def test_a_history_is_edited_to_the_same_bytes(name):
    history, _ = load_history(KEPT / f"history-{name}.safetensors", opened(name))
    assert same(history.picture, f"history.{name}")
    assert [edit.label for edit in history.edits] == EXPECTED["histories"][name]["edits"]


@pytest.mark.parametrize("name", ["stylegan", "dcgan"])
def test_a_history_of_a_found_code_is_edited_to_the_same_bytes(name):
    """Version 2: noise inputs, and activations of a layer."""
    history, _ = load_history(KEPT / f"history-adapted-{name}.safetensors", opened(f"scenes-{name}"))
    expected = load_file(KEPT / f"picture-adapted-{name}.safetensors")["picture"]
    difference = (history.picture.int() - expected.int()).abs()
    assert difference.max() <= 1 and float((difference > 0).double().mean()) < 0.002
    assert history.start.method == "a search" and len(history.edits) == 1


def test_directions_are_the_same():
    expected = EXPECTED["directions"]
    model = opened(expected["model"])
    directions = load_directions(KEPT / "directions.safetensors", model)
    assert [each.name for each in directions] == expected["names"]
    assert [list(each.levels) for each in directions] == expected["levels"]
    sums = [float(each.vector.double().abs().sum()) for each in directions]
    assert sums == pytest.approx(expected["sums"], rel=1e-9)
    step = directions[1].step
    where = model.spaces["z"].levels[expected["levels"][1][0]]
    assert (
        torch.equal(step[where], directions[1].vector[where]) and step.abs().sum() == step[where].abs().sum()
    )


@pytest.mark.parametrize("path", SHIPPED_RUNS, ids=lambda path: path.parent.name)
def test_the_config_of_a_shipped_run_is_accepted(path):
    """Every key that was written then is known, and its data set is found again."""
    settings = experiment_parser().parse_args(["--config", str(path)])
    assert str(settings.folder) == yaml.safe_load(path.read_text())["folder"]
    stored = json.loads((path.parent / "config.json").read_text())["description"]["source"]
    assert type(instantiate_data(stored)).__name__ in stored["class_path"]


def test_the_files_are_as_they_were_written():
    """A file that is written anew would prove nothing."""
    digests = {path.name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in KEPT.iterdir()}
    listed = json.loads((ROOT / "tests/models/legacy.json").read_text())
    assert digests == listed
