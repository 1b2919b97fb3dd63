"""`Codes`, and the one door between bytes and codes: labels travel, no tool encodes images in another way."""

import ast
from pathlib import Path

import pytest
import torch

import flows
from flows.data import Digits
from flows.editing.editor import Editor
from flows.inversion import (
    CodeFile,
    Exact,
    Group,
    ImageSource,
    Optimise,
    invert_exactly,
    load_codes,
    save_codes,
)
from flows.inversion.compare import compare
from flows.inversion.records import load_record, record_of, render_record, save_record
from flows.models import BigGAN, Codes, Glow, concatenate
from flows.steering import Direction, shift

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module", name="digits")
def _digits():
    return Digits().split("train").first(200)


@pytest.fixture(scope="module", name="conditional")
def _conditional(digits):
    """A class-conditional Glow whose classes differ: its prior's means are moved by hand."""
    torch.manual_seed(0)
    model = Glow((1, 8, 8), 17, levels=2, depth=2, width=8, num_classes=10)
    model.initialise(digits.images, digits.labels)
    with torch.no_grad():
        for value in model.parameters():
            if value.shape[:1] == (10,):
                value.add_(0.5 * torch.randn_like(value))
    return model.eval()


# The value ----------------------------------------------------------------------------------------


def test_selecting_keeps_space_and_labels_together():
    codes = Codes(torch.arange(10.0)[:, None] * torch.ones(3), "w", torch.arange(10))
    for rows in (slice(2, 5), [2, 3, 4], torch.tensor([2, 3, 4]), codes.values[:, 0].sub(3).abs() < 1.5):
        some = codes[rows]
        assert some.space == "w" and some.labels.tolist() == [2, 3, 4] == some.values[:, 0].tolist()
    assert codes[3].values.shape == (1, 3) and codes[-1].labels.tolist() == [9]
    assert [int(each.labels) for each in codes] == list(range(10))
    assert [len(part) for part in codes.split(4)] == [4, 4, 2]
    assert torch.equal(concatenate(list(codes.split(3))).values, codes.values)
    assert concatenate([codes, codes]).labels.tolist() == codes.repeat(2).labels.tolist()
    assert len(codes[[]]) == 0 and codes.with_values(codes.values + 1).labels is codes.labels
    assert codes.to(torch.zeros(1, dtype=torch.float64)).values.dtype == torch.float64


def test_what_does_not_fit_is_refused():
    values = torch.zeros(3, 2)
    for labels in (torch.zeros(2, dtype=torch.long), torch.zeros(3)):
        with pytest.raises(flows.UserError, match="one per code"):
            Codes(values, "z", labels)
    with pytest.raises(flows.UserError, match="expected codes of one space, got w, z"):
        concatenate([Codes(values, "z"), Codes(values, "w")])
    with pytest.raises(flows.UserError, match="labels of all codes or of none"):
        concatenate([Codes(values, "z"), Codes(values, "z", torch.zeros(3, dtype=torch.long))])
    with pytest.raises(IndexError):
        Codes(values, "z")[3]


def test_no_codes_are_no_images(conditional):
    empty = conditional.sample(0)
    assert conditional.decode_bytes(empty).shape == (0, 1, 8, 8)
    assert len(conditional.encode_bytes(torch.zeros(0, 1, 8, 8, dtype=torch.uint8))) == 0


# The door -----------------------------------------------------------------------------------------

MAY_ENCODE = {
    "inversion/hybrid.py": "its loss and its start are differentiable functions of float images",
    "metrics/roundtrip.py": "the error of a level is that of encoding the unrounded reconstruction",
}


def test_images_become_codes_in_one_place():
    """Six functions did; what is left beside `encode_bytes` needs floats, and says why."""
    found = set()
    for path in (ROOT / "flows").rglob("*.py"):
        name = path.relative_to(ROOT / "flows").as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "encode"
            ):
                # bytes of text have an `encode`, too, which takes no images
                if node.args and not name.startswith("models/"):
                    found.add(name)
    assert found == set(MAY_ENCODE)


def test_the_door_is_the_encoder_at_bin_centres(conditional, digits):
    """The oracle is the model's own map, applied by hand to (bin + ½)/17 and the class."""
    images, labels = digits.images[:7], digits.labels[:7]
    unit = ((images.int() * 17 // 256).float() + 0.5) / 17
    with torch.no_grad():
        expected = conditional.encode(unit, "z", labels)
    codes = conditional.encode_bytes(images, labels=labels, batch=3)
    torch.testing.assert_close(codes.values, expected)
    assert codes.space == "z" and torch.equal(codes.labels, labels)
    assert torch.equal(conditional.decode_bytes(codes, batch=2), flows.images.reduce(images, 17))


# Labels -------------------------------------------------------------------------------------------


def test_unknown_labels_are_those_of_the_largest_likelihood(conditional, digits):
    images = digits.images[:20]
    unit = flows.images.to_unit(images, 17)
    with torch.no_grad():
        each = [conditional.log_density(unit, torch.full((20,), label)) for label in range(10)]
    best = torch.stack(each).argmax(0)
    assert len(set(best.tolist())) > 1
    assert torch.equal(conditional.encode_bytes(images).labels, best)
    some = torch.where(torch.arange(20) < 10, digits.labels[:20], -1)
    mixed = conditional.encode_bytes(images, labels=some).labels
    assert torch.equal(mixed[:10], digits.labels[:10]) and torch.equal(mixed[10:], best[10:])


def test_other_labels_are_other_images(conditional, digits):
    """Were labels lost on the way, all of this would be decoded as class 0."""
    codes = conditional.encode_bytes(digits.images[:10], labels=digits.labels[:10])
    wrong = Codes(codes.values, "z", (codes.labels + 1) % 10)
    images = flows.images.reduce(digits.images[:10], 17)
    assert torch.equal(conditional.decode_bytes(codes), images)
    assert not torch.equal(conditional.decode_bytes(wrong), images)
    vector = torch.nn.functional.normalize(torch.ones(64), dim=0)
    direction = Direction(name="up", vector=vector, bias=0.0, space="z", sigma=1.0, method="by hand")
    assert torch.equal(conditional.decode_bytes(shift(codes, direction, 0.0)), images)
    assert torch.equal(shift(codes, direction, 1.0).labels, codes.labels)


def test_a_conditional_flow_is_compared_with_its_labels(conditional, digits):
    sources = [ImageSource(str(i)) for i in range(4)]
    groups = {
        "known": Group(digits.images[:4], sources, labels=digits.labels[:4]),
        "unknown": Group(digits.images[:4], sources),
    }
    rows = [each.row for each in compare({"glow": conditional}, {"exact": Exact()}, groups)]
    assert all(row.note == "" and row.bit_exact == 1 for row in rows)


def test_labels_count_the_classes_of_their_own_data_set(conditional, digits, monkeypatch):
    """Label 3 of another data set is not a 3."""
    monkeypatch.setattr(conditional, "description", {"name": "Digits"})
    sources = [ImageSource(str(i)) for i in range(4)]
    wrong = (digits.labels[:4] + 1) % 10
    names = ("Digits", "Others")
    groups = {name: Group(digits.images[:4], sources, labels=wrong, data=name) for name in names}
    results = compare({"glow": conditional}, {"exact": Exact()}, groups, edits=False)
    own, other = (each.record.codes.labels for each in results)
    assert torch.equal(own, wrong)
    assert torch.equal(other, conditional.infer_labels(digits.images[:4]))


def test_a_flow_without_classes_infers_no_labels(digits):
    plain = Glow((1, 8, 8), 17, levels=1, depth=1, width=4).eval()
    with pytest.raises(flows.Unsupported, match="without classes"):
        plain.infer_labels(digits.images[:2])


def test_a_gan_without_classes_of_the_images_says_so(digits):
    torch.manual_seed(0)
    gan = BigGAN((1, 8, 8), num_classes=10, bins=17, size=4, width=4, channels=(8, 8), attention=0).eval()
    group = {"images": Group(digits.images[:2], [ImageSource("a"), ImageSource("b")])}
    search = {space: Optimise(space, steps=2) for space in ("z", "z+c")}
    rows = {each.row.inverter: each.row for each in compare({"gan": gan}, search, group, edits=False)}
    assert "need labels" in rows["z"].note and "'z+c'" in rows["z"].note and rows["z+c"].note == ""
    with pytest.raises(flows.UserError, match="pass labels 0 … 9"):
        Optimise("z", steps=2).invert(gan, digits.images[:2])
    found = Optimise("z", steps=2).invert(gan, digits.images[:2], labels=digits.labels[:2])
    assert torch.equal(found.codes.labels, digits.labels[:2])


def test_files_keep_the_labels(conditional, digits, tmp_path):
    exact = invert_exactly(conditional, digits.images[:3], digits.labels[:3])
    path = tmp_path / "codes.safetensors"
    save_codes(path, CodeFile(exact.codes, ["a", "b", "c"], exact.certificates), conditional)
    assert torch.equal(load_codes(path, conditional).codes.labels, digits.labels[:3])
    inversion = Exact().invert(conditional, digits.images[:3], labels=digits.labels[:3])
    record = record_of(inversion, [ImageSource(name) for name in "abc"], 0)
    save_record(tmp_path / "record.safetensors", record, conditional)
    again = load_record(tmp_path / "record.safetensors", conditional)
    assert torch.equal(render_record(conditional, again), flows.images.reduce(digits.images[:3], 17))


def test_the_page_takes_an_upload_to_a_conditional_flow(conditional, digits, tmp_path):
    """It used to show a sample in the upload's place."""
    from flows.editing.records import load_history, save_history

    editor = Editor("digits", conditional)
    assert editor.encodes
    picture = flows.images.to_pillow(digits.images[5])
    history = editor.open(picture, "five.png")
    assert history.start.name == "five.png"
    assert torch.equal(history.picture, flows.images.reduce(digits.images[5], 17))
    assert torch.equal(conditional.decode_bytes(history.codes)[0], history.picture)
    assert [int(editor.sample(seed).codes.labels) for seed in (3, 14)] == [3, 4]
    save_history(tmp_path / "history.safetensors", history, conditional)
    loaded, same = load_history(tmp_path / "history.safetensors", conditional)
    assert same and torch.equal(loaded.codes.labels, history.codes.labels)


# Capabilities -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", flows.list_models())
def test_a_space_says_what_it_can(name):
    """What `Space` promises is tried: conversions, densities, temperatures."""
    model = flows.load(name)
    for space in model.spaces.values():
        codes = model.sample(2, space.name)
        assert (codes.labels is not None) == space.labelled
        for target in model.spaces:
            if target == space.name or target in space.conversions:
                assert model.can_convert(codes, target)
                assert model.convert_codes(codes, target).values.shape[1:] == model.spaces[target].shape
            elif not model.can_convert(codes, target):
                with pytest.raises(flows.UserError):
                    model.convert_codes(codes, target)
        if space.density:
            assert model.log_prob_code(codes.values, space.name).isfinite().all()
        else:
            with pytest.raises(flows.Unsupported):
                model.log_prob_code(codes.values, space.name)
        if space.tempered:
            cold = model.sample(2, space.name, temperature=0.5)
            assert not torch.equal(cold.values, codes.values)
        else:
            with pytest.raises(flows.UserError, match="has no effect there"):
                model.sample(2, space.name, temperature=0.5)
        if space.encodes:
            assert model.encode_bytes(model.decode_bytes(codes), space.name).space == space.name
        else:
            with pytest.raises(flows.Unsupported, match="no encoder"):
                model.encode_bytes(model.decode_bytes(codes), space.name, codes.labels)
