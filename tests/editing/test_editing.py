"""Editing one picture: every edit undone to the byte, all done again from a file; the rest stays."""

import json
import math
import struct
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from flows import images as pixels
from flows.cli import main
from flows.data.digits import Digits
from flows.data.scenes import Scenes
from flows.dissection.paint import soft
from flows.editing.editor import Editor, open_editor
from flows.editing.history import Edit, edited_upload
from flows.editing.records import load_history, read_history_header, save_history
from flows.errors import CheckpointError
from flows.inversion.optimise import Optimise
from flows.metrics.typicality import typicality
from flows.models.biggan import BigGAN
from flows.models.glow import Glow
from flows.semantics.load import load_semantic_model
from flows.studio import actions
from flows.studio.session import Studio

SHIPPED = Path(__file__).parents[2] / "checkpoints"


@pytest.fixture(scope="module")
def semantics():
    return [
        load_semantic_model(str(SHIPPED / name), "cpu") for name in ("scenes-predictor", "scenes-segmenter")
    ]


@pytest.fixture(scope="module")
def scenes():
    """Test images, and a photograph-like upload that they lie in."""
    return Scenes(test=40, cache=None).split("test")


@pytest.fixture(scope="module", params=["scenes-glow", "scenes-lia"])
def editor(request, semantics):
    return open_editor(str(SHIPPED / request.param), semantics, exemplars=150)


@pytest.fixture
def history(editor, scenes):
    return editor.open(pixels.to_pillow(scenes.images[1]), "room.png")


def brush(editor):
    mask = torch.zeros(editor.model.image_shape[1:], dtype=torch.bool)
    mask[12:26, 20:31] = True
    return mask


def edited(editor, history):
    """A move, a stroke, and another move."""
    history = editor.then(history, editor.move(history, {"daylight": -1.5, "wood": 0.5}))
    history = editor.then(history, editor.stroke(history, "plant", brush(editor), "draw"))
    return editor.then(history, editor.move(history, {"warmth": 1.0}))


def test_undo_gives_the_very_same_bytes(editor, history, scenes):
    assert torch.equal(history.picture, scenes.images[1])
    stages = [history.picture]
    far = edited(editor, history)
    assert [edit.label for edit in far.edits] == ["daylight -1.5 σ, wood +0.5 σ", "draw plant", "warmth +1 σ"]
    for stage in far.stages[1:]:
        assert not torch.equal(stage.picture, stages[-1])
        stages.append(stage.picture)
    for stage in reversed(stages):
        assert torch.equal(far.picture, stage)
        far = far.undone()
    assert far.edits == () and torch.equal(far.undone().picture, scenes.images[1])


def test_a_move_that_moves_nothing_changes_no_byte(editor, history):
    """Through LIA, too, whose encoder loses a lot: what was lost stays."""
    still = editor.then(history, editor.move(history, {"daylight": 0.0}))
    assert torch.equal(still.picture, history.picture)
    little = editor.then(history, editor.move(history, {"daylight": 0.01})).picture
    assert int((little.int() - history.picture.int()).abs().max()) <= 8


def test_darker_is_darker(editor, history):
    """The mean of the pixels is measured, independently of the semantic models."""
    dark, light = (
        editor.then(history, editor.move(history, {"daylight": alpha})).picture.float().mean()
        for alpha in (-1.5, 1.5)
    )
    assert dark < 0.8 * history.picture.float().mean() < 0.8 * light


def test_beyond_the_brush_every_byte_stays(editor, history):
    painted = editor.then(history, editor.stroke(history, "plant", brush(editor), "draw"))
    changed = (painted.picture != history.picture).any(0)
    assert changed.any() and not changed[soft(brush(editor), 2) == 0].any()
    green = [picture.float()[1] - picture.float()[0] for picture in (history.picture, painted.picture)]
    assert painted.edits[0].stroke_edit is not None and green[0].shape == green[1].shape
    nothing = editor.stroke(history, "church", brush(editor), "erase")
    assert nothing.stroke_edit is None and torch.equal(editor.then(history, nothing).picture, history.picture)


def test_a_conditioned_move_is_orthogonal_and_levels_stay(editor, history):
    step = editor.move(history, {"daylight": 2.0}, without=["lamp_on", "wood"]).step
    for name in ("lamp_on", "wood"):
        assert abs(float(step @ editor.directions[name].vector)) < 1e-4 * float(step.norm())
    assert float(step @ editor.directions["daylight"].vector) > 0
    levels = editor.model.spaces[editor.space].levels
    first = next(iter(levels))
    alone = editor.move(history, {"daylight": 2.0}, levels=[first]).step
    whole = editor.move(history, {"daylight": 2.0}).step
    torch.testing.assert_close(alone[:, levels[first]], whole[:, levels[first]])
    assert float(alone.norm() ** 2) == pytest.approx(float(alone[:, levels[first]].norm() ** 2), rel=1e-5)

    @torch.no_grad()
    def apart(step):
        moved = history.codes.with_values(history.codes.values + step)
        return abs(float(typicality(editor.model, moved)))

    budget = max(0.05, apart(0 * whole))
    kept = editor.move(history, {"daylight": 30.0}, budget=budget).step
    assert apart(kept) <= budget + 1e-3 < apart(editor.move(history, {"daylight": 30.0}).step)


def test_mistakes_are_sentences(editor, history):
    for act, message in (
        (lambda: editor.move(history, {"dark": 1.0}), "no direction 'dark'; it has daylight"),
        (lambda: editor.move(history, {"wood": 1.0}, levels=["top"]), "has no level 'top'"),
        (lambda: editor.stroke(history, "plant", brush(editor) & False, "draw"), "nothing is painted yet"),
        (lambda: editor.stroke(history, "dragon", brush(editor), "draw"), "no class 'dragon'"),
        (lambda: editor.ablate("nowhere", [0]), "has no layer 'nowhere'"),
        (lambda: editor.open(Image.new("RGB", (40, 30)), "x", (0, 0, 50, 30)), "expected a box within 40×30"),
    ):
        with pytest.raises(ValueError, match=message):
            act()


def test_units_off_are_an_edit(editor, history):
    layer = next(name for name in editor.model.layers() if editor.model.layers()[name].channels >= 12)
    off = editor.ablate(layer, [0, 3])
    after = editor.then(history, off)
    assert after.edits[0].label == f"off: {layer} 0, 3"
    assert torch.equal(after.undone().picture, history.picture)
    with pytest.raises(ValueError, match="there is no unit 9999"):
        editor.ablate(layer, [9999])


def test_the_whole_way_to_another_picture_is_its_code(editor, history, scenes):
    other = editor.open(pixels.to_pillow(scenes.images[5]), "other")
    arrived = editor.then(history, editor.towards(history, other.codes, 1.0))
    torch.testing.assert_close(arrived.codes.values, other.codes.values)
    level = next(iter(editor.model.spaces[editor.space].levels))
    where = editor.model.spaces[editor.space].levels[level]
    part = editor.then(history, editor.towards(history, other.codes, 1.0, [level]))
    torch.testing.assert_close(part.codes.values[:, where], other.codes.values[:, where])
    rest = torch.ones(part.codes.values.shape[1], dtype=torch.bool)
    rest[where] = False
    assert torch.equal(part.codes.values[:, rest], history.codes.values[:, rest])


def test_what_is_cropped_goes_back_where_it_was(editor, scenes):
    """An upload of another shape: unedited, it keeps its bytes; edited, only the box differs."""
    upload = pixels.to_pillow(scenes.images[2]).resize((96, 64), Image.Resampling.BICUBIC)
    box = (10, 4, 60, 54)
    history = editor.open(upload, "wide.png", box)
    assert pixels.from_pillow(edited_upload(history), 3).equal(pixels.from_pillow(upload, 3))
    moved = editor.then(history, editor.move(history, {"daylight": -2.0}))
    before, after = pixels.from_pillow(upload, 3), pixels.from_pillow(edited_upload(moved), 3)
    assert edited_upload(moved).size == (96, 64)
    outside = torch.ones(64, 96, dtype=torch.bool)
    outside[box[1] : box[3], box[0] : box[2]] = False
    assert torch.equal(before[:, outside], after[:, outside])
    assert float((before != after)[:, ~outside].any(0).double().mean()) > 0.9


# Records ------------------------------------------------------------------------------------------


def test_a_record_gives_the_same_bytes(editor, history, tmp_path, capsys):
    far = edited(editor, history)
    save_history(tmp_path / "r.safetensors", far, editor.model, editor.checkpoint)
    again, same = load_history(tmp_path / "r.safetensors", editor.model)
    assert same and torch.equal(again.picture, far.picture)
    # No folder of this machine: a path from here, or the name alone.
    stored = Path(read_history_header(tmp_path / "r.safetensors").checkpoint)
    assert not stored.is_absolute() and stored.name == Path(editor.checkpoint).name
    assert [edit.label for edit in again.edits] == [edit.label for edit in far.edits]
    assert again.edits[0].settings["sigmas"] == {"daylight": -1.5, "wood": 0.5}
    for mine, theirs in zip(again.stages, far.stages, strict=True):
        assert torch.equal(mine.picture, theirs.picture)
    main(["render", str(tmp_path / "r.safetensors"), "--output", str(tmp_path / "out"),
          "--json", str(tmp_path / "r.json")])  # fmt: skip
    assert json.loads((tmp_path / "r.json").read_text())["same_bytes"] is True
    with Image.open(tmp_path / "out" / "r.png") as opened:
        assert torch.equal(pixels.from_pillow(opened, 3), far.picture)
    assert "draw plant; warmth +1 σ; identical to the recorded bytes" in capsys.readouterr().out


def test_a_record_of_another_model_or_altered_is_refused(semantics, scenes, tmp_path):
    glow, lia = (open_editor(str(SHIPPED / name), semantics) for name in ("scenes-glow", "scenes-lia"))
    history = glow.open(pixels.to_pillow(scenes.images[0]), "a")
    history = glow.then(history, glow.move(history, {"wood": 1.0}))
    path = tmp_path / "glow.safetensors"
    save_history(path, history, glow.model)
    prints = glow.model.fingerprint(), lia.model.fingerprint()
    with pytest.raises(CheckpointError, match=rf"holds edits of Glow {prints[0]}; .* LIA {prints[1]}"):
        load_history(path, lia.model)
    content = path.read_bytes()
    (tmp_path / "cut").write_bytes(content[: len(content) // 2])
    (tmp_path / "text").write_text("no record")
    size = struct.unpack("<Q", content[:8])[0]
    head = json.loads(content[8 : 8 + size])["__metadata__"]
    tensors = load_file(path)
    save_file({**tensors, "0.step": torch.zeros(1, 7)}, tmp_path / "step", metadata=head)
    save_file(
        {**tensors, "picture": tensors["picture"][:, :9].contiguous()}, tmp_path / "picture", metadata=head
    )
    save_file({**tensors, "code": tensors["code"][:, :9].contiguous()}, tmp_path / "code", metadata=head)
    save_file({**tensors, "0.where": torch.ones(9, 9)}, tmp_path / "where", metadata=head)
    save_file(tensors, tmp_path / "mute", metadata={"history_version": "1", "history": "{}"})
    header = json.loads(head["history"])
    for name, key, value in (
        ("box", "box", [0, 0, 999, 999]),
        ("space", "space", "q"),
        ("edits", "edits", 3),
    ):
        whole = {**head, "history": json.dumps({**header, key: value})}
        save_file(tensors, tmp_path / name, metadata=whole)
    for name in (
        "cut",
        "text",
        "step",
        "where",
        "picture",
        "code",
        "mute",
        "box",
        "space",
        "edits",
        "nowhere",
    ):
        with pytest.raises(CheckpointError):
            load_history(tmp_path / name, glow.model)
    assert read_history_header(tmp_path / "cut") is None and read_history_header(tmp_path / "nowhere") is None
    # Another digest is reported, not refused: another machine may differ in a bit.
    whole = {**head, "history": json.dumps({**header, "digest": "0" * 64})}
    save_file(tensors, tmp_path / "digest", metadata=whole)
    assert load_history(tmp_path / "digest", glow.model)[1] is False


# What it stands on --------------------------------------------------------------------------------


def test_the_first_images_of_a_data_set_are_those_of_the_whole(tmp_path):
    data = Scenes(test=12, cache=tmp_path)
    few = data.first("test", 5)
    assert not list(tmp_path.iterdir()), "five images, and all were drawn"
    whole = data.split("test").first(5)
    again = data.first("test", 5)
    for one in (few, again):
        assert torch.equal(one.images, whole.images) and torch.equal(one.masks, whole.masks)
        assert torch.equal(one.attributes.nan_to_num(-9), whole.attributes.nan_to_num(-9))
    assert len(data.first("test", 99).images) == 12


def test_a_search_that_is_watched_stops_on_request(semantics, scenes):
    model = open_editor(str(SHIPPED / "scenes-dcgan"), semantics).model
    seen = []

    def watch(share, codes):
        seen.append((share, codes.values.shape))
        return len(seen) < 7

    image = scenes.images[:1]
    found = Optimise("z", steps=50, watch=watch).invert(model, image, torch.Generator().manual_seed(0))
    assert len(seen) == 7 and found.steps == 7 and found.succeeded.all()
    assert seen[3] == (3 / 50, (1, 100))
    free = Optimise("z", steps=50).invert(model, image, torch.Generator().manual_seed(0))
    assert free.steps == 50


def test_a_model_without_an_encoder_is_painted_on_its_samples(semantics):
    editor = open_editor(str(SHIPPED / "scenes-dcgan"), semantics, exemplars=150)
    with pytest.raises(ValueError, match="has no encoder for pictures; take a sample"):
        editor.open(Image.new("RGB", (32, 32)), "x")
    history = editor.sample(3)
    assert torch.equal(editor.sample(3).picture, history.picture)
    painted = editor.then(history, editor.stroke(history, "banner", brush(editor) | True, "draw"))
    assert len(painted.edits) == 1 and torch.equal(painted.undone().picture, history.picture)


def test_without_semantic_models_there_is_still_the_inverse(scenes):
    editor = Editor("x", open_editor(str(SHIPPED / "scenes-glow")).model)
    history = editor.open(pixels.to_pillow(scenes.images[0]), "a")
    assert editor.readings(history.picture) == [] and sum(map(len, editor.groups.values())) == 0
    with pytest.raises(ValueError, match="has no segmenter"):
        editor.stroke(history, "plant", torch.ones(32, 32, dtype=torch.bool), "draw")
    with pytest.raises(ValueError, match="no direction 'wood'; it has none"):
        editor.move(history, {"wood": 1.0})
    assert torch.equal(editor.then(history, Edit("nothing")).picture, history.picture)


def test_a_class_conditional_flow_is_edited_with_the_most_likely_class(tmp_path):
    model = Glow((1, 8, 8), 17, levels=2, depth=2, width=8, num_classes=10).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    editor, picture = Editor("digits", model), Digits().split("test").images[3]
    history, other = editor.open(pixels.to_pillow(picture), "digit.png"), editor.sample(14)
    label = model.infer_labels(picture[None])
    assert torch.equal(history.picture, picture) and torch.equal(history.codes.labels, label)
    assert other.codes.labels.tolist() == [4] and label.tolist() != [4]
    assert actions.inverted(editor, history).certificate.startswith("Bit-exact")
    moved = editor.then(history, editor.towards(history, other.codes, 0.5))
    assert torch.equal(moved.codes.labels, label) and not torch.equal(moved.picture, picture)
    save_history(tmp_path / "r.safetensors", moved, model)
    again, same = load_history(tmp_path / "r.safetensors", model)
    assert same and torch.equal(again.codes.labels, label) and torch.equal(again.picture, moved.picture)
    (compared,) = actions.compare_on_model(editor, picture, 1)
    assert compared.row.note == "" and compared.row.psnr == math.inf and compared.row.undone > 0


def test_known_classes_go_along_in_the_studio(tmp_path, monkeypatch):
    """Those of examples and of the picture; inferring the class of any of these pictures is an error here."""
    torch.manual_seed(0)
    model = Glow((1, 8, 8), 17, levels=2, depth=2, width=8, num_classes=10).eval()
    source = {"class_path": "flows.data.digits.Digits", "init_args": {}}
    model.description = {"name": "Digits", "source": source}
    for name in ("one", "two"):
        model.save_pretrained(tmp_path / name)
    model.description = {"name": "Others"}
    model.save_pretrained(tmp_path / "others")
    studio = Studio([str(tmp_path / name) for name in ("one", "two", "others")], [], tmp_path / "files")
    truth = Digits().split("test").first(3).labels
    paths = studio.examples("one")[:3]

    def infer(*_, **__):
        raise AssertionError("inferred")

    with monkeypatch.context() as patch:
        patch.setattr(Glow, "infer_labels", infer)
        for path, label in zip(paths, truth, strict=True):
            session = studio.open("one", path)
            assert torch.equal(session.history.start.codes.labels.cpu(), label[None])
            cropped = studio.crop_again("one", session, 1.0, 0.5, 0.5)
            assert torch.equal(cropped.history.start.codes.labels.cpu(), label[None])
            moved = studio.change_model("two", session)
            assert torch.equal(moved.history.start.codes.labels.cpu(), label[None])
            *_, (table, _) = studio.compare(["one", "two"], session, 0.2)
            assert table.count("∞") == 2
        studio.editor("two").space = "z"
        *_, (_, done, _) = studio.search("two", session, 0.2)
        assert done.endswith("done")
        with pytest.raises(AssertionError, match="inferred"):
            list(studio.search("others", session, 0.2))  # its classes are others
    upload = tmp_path / "upload.png"
    upload.write_bytes(Path(paths[0]).read_bytes())
    assert studio.open("one", str(upload)).label is None


def test_a_class_conditional_gan_is_searched_only_where_codes_need_no_class():
    model = BigGAN((3, 16, 16), 3, size=6, width=4, channels=(8, 8, 6), attention=8).eval()
    editor, picture = Editor("gan", model), torch.zeros(3, 16, 16, dtype=torch.uint8)
    *_, compared = actions.compare_on_model(editor, picture, 0.2)
    assert compared.row.note == "" and compared.row.psnr > 0
    editor.space = "z"
    sampled = editor.sample(4)
    assert sampled.codes.labels.tolist() == [1] and not editor.encodes
    (refused,) = actions.compare_on_model(editor, picture, 0.2)
    assert "codes of 'z' need the class of each image" in refused.row.note and refused.reconstruction is None
