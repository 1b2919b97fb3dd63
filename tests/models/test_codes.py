"""`Codes`, and the one door between bytes and codes: labels travel, no tool encodes images in another way."""

import ast
from pathlib import Path

import numpy as np
import pytest
import torch

import flows
from flows.data import Digits
from flows.editing.editor import Editor
from flows.inversion import (
    CodeFile,
    Encoder,
    Exact,
    Group,
    ImageSource,
    Optimise,
    invert_exactly,
    load_codes,
    save_codes,
)
from flows.inversion.base import reconstruct
from flows.inversion.comparison import Measures, code_error, compare, mean_typicality
from flows.inversion.records import load_record, record_of, render_record, save_record
from flows.metrics import round_trip
from flows.metrics.typicality import typicality
from flows.models import BigGAN, Codes, Glow, concatenate
from flows.steering import Direction, shift

ROOT = Path(__file__).parents[2]


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


@pytest.fixture(scope="module", name="classes")
def _classes():
    """A BigGAN, whose `z` needs labels and whose `z+c` includes them."""
    torch.manual_seed(0)
    return BigGAN((1, 8, 8), num_classes=10, bins=17, size=4, width=4, channels=(8, 8), attention=0).eval()


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


def test_masks_and_numbers_of_any_kind_select_codes():
    codes = Codes(torch.arange(4.0)[:, None] * torch.ones(3), "w", [3, 2, 1, 0])
    mask = [True, False, True, True]
    for rows in (mask, np.array(mask), torch.tensor(mask), [0, 2, 3], np.array([3, 2, 0])[::-1], [0, 2, -1]):
        some = codes[rows]
        assert some.values[:, 0].tolist() == [0, 2, 3] and some.labels.tolist() == [3, 1, 0]
    for number in (2, -2, np.int64(2), torch.tensor(2), np.uint8(2)):
        assert codes[number].values.tolist() == [[2, 2, 2]] and codes[number].labels.tolist() == [1]
    for wrong in (1.0, [0.5], [[0, 1]], mask[:3], [7], np.int64(4), "ab"):
        with pytest.raises(IndexError):
            codes[wrong]


def test_codes_are_equal_by_their_values():
    codes = Codes(torch.ones(2, 3), "z", torch.tensor([1, 2]))
    assert codes == Codes(torch.ones(2, 3), "z", [1, 2]) and len({codes, codes[:]}) == 1
    assert codes != Codes(torch.ones(2, 3), "z") and codes != Codes(torch.ones(2, 3), "w", [1, 2])
    assert codes != codes.to(torch.float64) and codes != codes[[1, 0]] and codes != codes[:1] and codes != 3
    assert codes.to(torch.float64).values.dtype == torch.float64 and codes.to("cpu") == codes
    with pytest.raises(TypeError, match="a device, a dtype, a model or a tensor, got int"):
        codes.to(3)


def test_a_tensor_in_the_place_of_codes_is_named(conditional):
    values = torch.zeros(2, 64)
    calls = (
        conditional.decode_bytes,
        conditional.decode_codes,
        lambda wrong: conditional.convert_codes(wrong, "z"),
        lambda wrong: conditional.map_images(wrong, torch.relu),
    )
    for call in calls:
        with pytest.raises(flows.UserError, match=r"^expected Codes, got Tensor: Codes\(values, space\)$"):
            call(values)


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
    results = compare({"glow": conditional}, {"exact": Exact()}, groups, measures=Measures(edits=False))
    own, other = (each.record.codes.labels for each in results)
    assert torch.equal(own, wrong)
    assert torch.equal(other, conditional.infer_labels(digits.images[:4]))


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -1.0])
def test_temperatures_that_are_none_are_refused(conditional, temperature):
    with pytest.raises(flows.UserError, match="finite number of at least 0"):
        conditional.sample(2, temperature=temperature)


def test_counts_that_do_not_fit_are_refused(conditional, digits):
    images = digits.images[:2]
    with pytest.raises(flows.UserError, match="batch: expected at least 1"):
        conditional.encode_bytes(images, batch=0)
    with pytest.raises(flows.UserError, match="batch: expected at least 1"):
        conditional.decode_bytes(conditional.encode_bytes(images), batch=0)
    with pytest.raises(flows.UserError, match="number of codes, got -1"):
        conditional.sample(-1)
    plain = Glow((1, 8, 8), 17, levels=1, depth=1, width=4).eval()
    with pytest.raises(flows.UserError, match="one per image, 2, got 1"):
        plain.encode_bytes(images, labels=[0])


def test_a_flow_without_classes_infers_no_labels(digits):
    plain = Glow((1, 8, 8), 17, levels=1, depth=1, width=4).eval()
    with pytest.raises(flows.Unsupported, match="without classes"):
        plain.infer_labels(digits.images[:2])


def test_a_gan_without_classes_of_the_images_says_so(digits):
    torch.manual_seed(0)
    gan = BigGAN((1, 8, 8), num_classes=10, bins=17, size=4, width=4, channels=(8, 8), attention=0).eval()
    group = {"images": Group(digits.images[:2], [ImageSource("a"), ImageSource("b")])}
    search = {space: Optimise(space, steps=2) for space in ("z", "z+c")}
    rows = {
        each.row.inverter: each.row
        for each in compare({"gan": gan}, search, group, measures=Measures(edits=False))
    }
    assert "need labels" in rows["z"].note and "'z+c'" in rows["z"].note and rows["z+c"].note == ""
    with pytest.raises(flows.UserError, match="pass labels 0 … 9"):
        Optimise("z", steps=2).invert(gan, digits.images[:2])
    found = Optimise("z", steps=2).invert(gan, digits.images[:2], labels=digits.labels[:2])
    assert torch.equal(found.codes.labels, digits.labels[:2])


LABELS = {
    "list": list,
    "array": np.array,
    "narrow array": lambda labels: np.array(labels, dtype=np.int32)[::-1][::-1],
    "narrow tensor": lambda labels: torch.tensor(labels, dtype=torch.uint8),
}


@pytest.mark.parametrize("kind", LABELS)
def test_labels_are_integers_of_any_kind(conditional, digits, kind):
    images, known = digits.images[:3], digits.labels[:3]
    labels, array = LABELS[kind](known.tolist()), images.numpy()
    expected = conditional.encode_bytes(images, labels=known)
    assert conditional.encode_bytes(images, labels=labels) == expected
    assert Codes(expected.values, "z", labels) == expected
    assert torch.equal(conditional.sample(3, labels=labels).labels, known)
    generator = torch.Generator().manual_seed(0)
    log_prob = conditional.log_prob(images, known, generator)
    assert torch.equal(conditional.log_prob(images, labels, generator.manual_seed(0)), log_prob)
    for inverter in (Exact(), Encoder(), Optimise("z", steps=1)):
        assert torch.equal(inverter.invert(conditional, images, labels=labels).codes.labels, known)
    assert torch.equal(invert_exactly(conditional, array, labels).codes.labels, known)
    trip = round_trip(conditional, array, labels)
    assert trip.codes == expected and trip.bit_exact.all()
    assert torch.equal(conditional.infer_labels(array), conditional.infer_labels(images))
    pictures = [flows.images.to_pillow(image) for image in flows.images.reduce(images, 17)]
    assert torch.equal(conditional.infer_labels(pictures), conditional.infer_labels(images))


def test_labels_that_are_no_classes_are_refused_at_once(conditional, digits):
    images = digits.images[:2]
    for wrong in ([0.5, 1.0], ["a", "b"], [[0], [1]], np.array([True, False]), 3, [[0], [1, 2]]):
        for call in (
            lambda labels: conditional.encode_bytes(images, labels=labels),
            lambda labels: conditional.sample(2, labels=labels),
            lambda labels: conditional.log_prob(images, labels),
            lambda labels: invert_exactly(conditional, images, labels),
            lambda labels: Codes(torch.zeros(2, 64), "z", labels),
        ):
            with pytest.raises(flows.UserError, match="labels: expected integers, one per code or image"):
                call(wrong)
    with pytest.raises(flows.UserError, match="expected labels 0 … 9.* got 1 … 20"):
        conditional.sample(2, labels=[1, 20])
    with pytest.raises(flows.UserError, match="expected labels 0 … 9"):
        conditional.sample(2, labels=[1])
    with pytest.raises(flows.UserError, match="expected labels 0 … 9.*got none"):
        conditional.log_prob(images)


def test_who_infers_labels_says_so(conditional, classes):
    plain = Glow((1, 8, 8), 17, levels=1, depth=1, width=4).eval()
    assert conditional.infers_labels and not plain.infers_labels and not classes.infers_labels
    for model in (plain, classes):
        with pytest.raises(flows.Unsupported):
            model.infer_labels(torch.zeros(1, 1, 8, 8, dtype=torch.uint8))
    with pytest.raises(flows.UserError, match="labels: Glow is not class-conditional"):
        plain.sample(2, labels=[0, 1])


def test_a_space_with_its_class_is_sampled_by_class(classes):
    """The oracle is the generator on the same z with the labels."""
    labels = torch.tensor([3, 1, 3])
    z, both = (classes.sample(3, space, seed=5, labels=labels) for space in ("z", "z+c"))
    assert both.labels is None and torch.equal(both.values[:, :4], z.values)
    assert torch.equal(classes.decode_bytes(both), classes.decode_bytes(z))
    assert both != classes.sample(3, "z+c", seed=5, labels=[1, 1, 1])
    free = classes.sample(3, "z+c", seed=5)
    assert torch.equal(free.values, classes.sample_codes(3, "z+c", torch.Generator().manual_seed(5)))


def test_a_conversion_keeps_the_class_or_is_refused(classes):
    z = classes.sample(3, "z", labels=[3, 1, 4])
    assert classes.can_convert(z, "z+c")
    both = classes.convert_codes(z, "z+c")
    assert both.labels is None and torch.equal(classes.decode_bytes(both), classes.decode_bytes(z))
    assert not classes.can_convert(both, "z") and not classes.spaces["z+c"].conversions
    with pytest.raises(flows.Unsupported, match="codes of space 'z' need a class each"):
        classes.convert_codes(both, "z")
    bare = Codes(z.values, "z")
    assert not classes.can_convert(bare, "z+c")
    with pytest.raises(flows.Unsupported, match="no map"):
        classes.convert_codes(bare, "z+c")
    # Lengths and distances need no class.
    assert torch.equal(classes.values_in(both, "z"), z.values) and classes.values_in(z, "z+c") is None
    assert torch.equal(typicality(classes, both), typicality(classes, z))
    assert mean_typicality(classes, both) == mean_typicality(classes, z) > 0
    assert code_error(classes, both, z) == code_error(classes, z, both) == 0


def test_noise_inputs_are_refused_where_labels_would_be_lost(classes, monkeypatch):
    monkeypatch.setattr(BigGAN, "noise", lambda self: [], raising=False)
    monkeypatch.setattr(BigGAN, "decode_with_noise", lambda *_: pytest.fail("without labels"), raising=False)
    with pytest.raises(flows.Unsupported, match="only without labels"):
        reconstruct(classes, classes.sample(1, "z"), [torch.zeros(1, 1, 8, 8)])


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
    """Every capability that `Space` states is tried: conversions, densities, temperatures."""
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
