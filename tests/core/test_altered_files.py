"""Files altered at any place are refused by name, or read; they never end in another exception."""

import copy
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from flows.core.schema import parse, read_json
from flows.data.source import instantiate_data
from flows.editing import read_found
from flows.editing.records import load_history
from flows.errors import CheckpointError, UserError
from flows.inversion import load_record, render_record
from flows.models.load import load
from flows.opening import load_any
from flows.steering import load_directions
from flows.steering.ranking import read_scores
from flows.training.checkpoint import check_state

ROOT = Path(__file__).parents[2]
KEPT = ROOT / "tests/models/legacy"
WRONG = [None, True, -1, 10**30, 0.5, "x", [], ["x"], [[1]], {}, {"x": 1}]
"""Values that are put in every place of a file's JSON."""


# Values of JSON -----------------------------------------------------------------------------------


@dataclass
class Inner:
    size: tuple[int, int] | None
    kind: Literal["a", "b"] = "a"


@dataclass
class Outer:
    name: str
    parts: list[Inner]
    rates: dict[str, float] = field(default_factory=dict)
    vector: torch.Tensor | None = None
    many: tuple[str, ...] = ()
    rest: Any = None


def test_values_are_converted_to_their_types():
    vector = torch.zeros(2)
    value = {
        "name": "n", "parts": [{"size": [3, 4]}, {"size": None, "kind": "b"}], "rates": {"x": 1, "y": 0.5},
        "vector": vector, "many": ["a", "b", "c"], "rest": [{"any": None}],
    }  # fmt: skip
    parsed = parse(Outer, value)
    assert parsed == Outer(
        "n", [Inner((3, 4)), Inner(None, "b")], {"x": 1.0, "y": 0.5}, vector, ("a", "b", "c"), [{"any": None}]
    )
    assert type(parsed.rates["x"]) is float
    assert parse(Outer, {"name": "n", "parts": []}) == Outer("n", [])


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (3, "file: expected an object, got 3"),
        ({"parts": []}, "file.name is missing"),
        ({"name": 3, "parts": []}, "file.name: expected a text, got 3"),
        ({"name": "n", "parts": {}}, "file.parts: expected a list, got {}"),
        ({"name": "n", "parts": [{"size": [1]}]}, r"file.parts\[0\].size: expected a list of 2, got \[1\]"),
        ({"name": "n", "parts": [{"size": [1, True]}]}, r"size\[1\]: expected a whole number, got True"),
        ({"name": "n", "parts": [{"size": None, "kind": "c"}]}, "kind: expected 'a' or 'b', got 'c'"),
        ({"name": "n", "parts": [], "rates": {"x": "1"}}, "file.rates.x: expected a number, got '1'"),
        ({"name": "n", "parts": [], "rates": {"x": 10**400}}, "file.rates.x: expected a number, got 1000"),
        ({"name": "n", "parts": [], "vector": 1}, "file.vector: expected Tensor, got 1"),
        ({"name": "n", "parts": [], "colour": 1}, "file.colour: unknown key; expected name, parts, rates"),
    ],
)
def test_a_value_of_another_type_is_named(value, message):
    with pytest.raises(UserError, match=message):
        parse(Outer, value, "file")


@pytest.mark.parametrize("text", ["", "{", b"\xff\xfe", "[" * 100_000, b"\x89PNG"])
def test_text_that_is_no_json_is_refused(text):
    with pytest.raises(UserError, match="not JSON"):
        read_json(text)


# Files --------------------------------------------------------------------------------------------


def altered(value):
    """Every copy of a value of JSON with one part replaced by one of `WRONG`, or left out."""
    yield from WRONG
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else []
    for key in keys:
        for part in altered(value[key]):
            changed = copy.copy(value)
            changed[key] = part
            yield changed
        rest = copy.copy(value)
        del rest[key]
        yield rest


def altered_tensors(tensors):
    """Every copy of named tensors with one left out, or replaced by one of another shape, type or value."""
    for name, value in tensors.items():
        yield {key: each for key, each in tensors.items() if key != name}
        others = [torch.tensor(1), value[:0], value[None], value.half(), value.to(torch.uint8), value * 0 - 1]
        for other in (*others, torch.full(value.shape, float("nan"))):
            yield {**tensors, name: other.contiguous()}
        yield {**tensors, f"{name}.9": value.clone()}
        yield {**tensors, "noise.7": value.clone(), "weights.x": value.clone()}


def read(path):
    with safe_open(path, framework="pt") as opened:
        return opened.metadata(), {key: opened.get_tensor(key) for key in opened.keys()}


def refused_or_read(use, path):
    """Whether a file is refused; any other exception than a UserError that names the file is an error."""
    try:
        use(path)
    except UserError as error:
        assert path.name in str(error) or str(path.parent) in str(error), error
        return True
    return False


def use_codes(path, model):
    read_found(path, model).decode(model)


def use_record(path, model):
    render_record(model, load_record(path, model))


def use_directions(path, model):
    load_directions(path, model)


def use_history(path, model):
    load_history(path, model)


FILES = {
    "codes": ("scenes-nice", ("names", "labels", "certificates"), use_codes),
    "directions": ("scenes-glow", ("directions",), use_directions),
    "history-scenes-lia": ("scenes-lia", ("history",), use_history),
    "record-exact": ("scenes-nice", ("record",), use_record),
    "record-noise": ("scenes-stylegan", ("record",), use_record),
    "record-layer": ("scenes-dcgan", ("record",), use_record),
}
"""Name of a file of `tests/models/legacy` to its model, the metadata that are JSON, and its reader."""


@pytest.mark.parametrize("name", FILES)
def test_a_safetensors_file_altered_anywhere_is_refused_or_read(name, tmp_path):
    checkpoint, keys, use = FILES[name]
    model = load_any(str(ROOT / "checkpoints" / checkpoint), "cpu")
    metadata, tensors = read(KEPT / f"{name}.safetensors")
    path, refused = tmp_path / "altered.safetensors", 0
    files = [(metadata, each) for each in altered_tensors(tensors)]
    for key in metadata:
        files += [({name: metadata[name] for name in metadata if name != key}, tensors)]
        values = altered(json.loads(metadata[key])) if key in keys else ()
        files += [({**metadata, key: text}, tensors) for text in ("{", *map(json.dumps, values))]
    for header, contents in files:
        save_file(contents, path, metadata=header)
        refused += refused_or_read(lambda path: use(path, model), path)
    assert refused > 0.7 * len(files)


def test_a_config_altered_anywhere_is_refused_or_read(tmp_path):
    from flows.models.nice import NICE

    NICE((1, 2, 2), couplings=2, hidden_layers=1, width=4).save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    for each in altered(json.loads(path.read_text())):
        path.write_text(json.dumps(each))
        refused_or_read(lambda _: load(tmp_path), path)


def test_a_manifest_altered_anywhere_is_refused(tmp_path):
    path = tmp_path / "manifest.json"
    for each in altered({"state_version": 1, "files": {"model.safetensors": "0" * 64}}):
        path.write_text(json.dumps(each))
        if each != {"state_version": 1, "files": {}}:
            with pytest.raises(CheckpointError, match=r"manifest\.json|model\.safetensors"):
                check_state(tmp_path)


def test_scores_altered_anywhere_are_refused_or_read(tmp_path):
    direction = {
        "method": "boundary", "effect": 2.0, "monotone": 1.0, "worst": "wood", "leakage": None, "kept": 0.9,
        "reach": 0.5, "distances": [0.1], "faithful": None, "signed": [1.0],
    }  # fmt: skip
    scores = {
        "scores_version": 1, "checkpoint": "x/lia", "of": "samples", "space": "z",
        "directions": {"daylight": direction},
    }  # fmt: skip
    path = tmp_path / "scores.json"
    path.write_text(json.dumps(scores))
    assert [each.effect for each in read_scores(path)] == [2.0]
    for each in altered(scores):
        path.write_text(json.dumps(each))
        refused_or_read(read_scores, path)
    path.write_text(json.dumps({**scores, "scores_version": 2}))
    with pytest.raises(UserError, match="has scores version 2, this release of flows reads 1"):
        read_scores(path)


# Bugs behind the readers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("codes", "flows.inversion.codes.Certificate.__init__"),
        ("codes", "flows.models.codes.Codes.__post_init__"),
        ("directions", "flows.steering.base.Direction.__post_init__"),
        ("directions", "flows.steering.base.Direction.on_levels"),
        ("history-scenes-lia", "flows.editing.records.Start"),
        ("history-scenes-lia", "flows.editing.records.Change"),
        ("history-scenes-lia", "flows.editing.records.StrokeEdit"),
        ("history-scenes-lia", "flows.editing.records.layers_of"),
        ("record-exact", "flows.inversion.records.ImageSource.__init__"),
        ("record-layer", "flows.inversion.records.Record"),
    ],
)
def test_a_bug_behind_a_reader_is_no_fault_of_the_file(name, where, monkeypatch):
    checkpoint, _, use = FILES[name]
    model = load_any(str(ROOT / "checkpoints" / checkpoint), "cpu")
    for bug in (
        ValueError("zip() argument 2 is longer"),
        TypeError("no argument"),
        KeyError("z"),
        RuntimeError("x"),
    ):

        def broken(*_, bug=bug, **__):
            raise bug

        with monkeypatch.context() as patch:
            patch.setattr(where, broken)
            with pytest.raises(type(bug)) as left:
                use(KEPT / f"{name}.safetensors", model)
            assert left.value is bug


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"size": 32.0}, "size: expected 32 or 64, got 32.0"),
        ({"cache": 5}, "cache: expected a text, got 5"),
        ({"withhold": 5}, "withhold: expected a list, got 5"),
        ({"correlated": [1]}, r"correlated: expected an object, got \[1\]"),
        ({"images": -1}, "images: expected a whole number above 0, got -1"),
        ({"flavour": 1}, "has no argument flavour"),
    ],
)
def test_a_data_set_of_a_checkpoint_with_wrong_arguments_is_refused(given, sentence):
    with pytest.raises(UserError, match=sentence):
        instantiate_data({"class_path": "flows.data.scenes.dataset.Scenes", "init_args": given})
    with pytest.raises(UserError, match="cannot be taken from a checkpoint"):
        instantiate_data({"class_path": "flows.data.base.ImageData"})


def test_a_cached_survey_of_other_shapes_is_refused(tmp_path):
    from flows.models.nice import NICE
    from flows.semantics.base import Score
    from flows.steering.survey import survey_samples

    class Mean:
        scores = (Score("mean", "mean", "group", False),)

        def predict(self, images):
            return images.mean((1, 2, 3))[:, None]

        def fingerprint(self):
            return "0" * 16

    model = NICE((1, 4, 4), couplings=2, hidden_layers=1, width=4).eval()
    survey_samples(model, Mean(), 5, cache=str(tmp_path))
    (path,) = tmp_path.iterdir()
    _, tensors = read(path)
    for wrong in altered_tensors(tensors):
        save_file(wrong, path)
        refused_or_read(lambda _: survey_samples(model, Mean(), 5, cache=tmp_path), path)
