"""Edits of inverted images against true edits: the scene, rendered again with one factor changed."""

import json
import math

import numpy as np
import pytest
import torch
from verbs import bundled

import flows
from flows.cli import main
from flows.data.digits import Digits
from flows.data.scenes import Scenes
from flows.data.scenes.factors import COLUMN
from flows.data.scenes.render import render
from flows.editing.editability import AMOUNTS, ENOUGH, Editability, Trial, attribute_of, requests
from flows.errors import UserError
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact
from flows.opening import load_predictor
from flows.semantics.base import column_of, predict_images
from flows.steering.base import load_directions, shift

N = 16


@pytest.fixture(scope="module")
def scenes():
    return Scenes()


@pytest.fixture(scope="module")
def lia():
    return flows.load(bundled("scenes-lia")).eval()


def directions_of(name, model, *wanted):
    found = load_directions(f"{bundled(name)}/directions.safetensors", model)
    return [each for each in found if each.name in wanted]


def test_requests_turn_switches_and_move_by_half_the_range(scenes):
    attributes = {each.name: each for each in scenes.all_attributes()}
    columns = list(attributes)
    truth = scenes.first("test", 200).attributes
    for name in ("daylight", "yaw", "lamp_on", "wood"):
        attribute = attributes[name]
        before, wanted = requests(scenes, attribute, 200)
        torch.testing.assert_close(before, truth[:, columns.index(name)].float(), equal_nan=True)
        known = ~before.isnan()
        assert known.sum() > 50 and torch.equal(wanted.isnan(), ~known)
        if attribute.kind == "binary":
            assert torch.equal(wanted[known], 1 - before[known])
        else:
            assert (wanted[known] >= attribute.low).all() and (wanted[known] <= attribute.high).all()
            half = (attribute.high - attribute.low) / 2
            torch.testing.assert_close((wanted - before)[known].abs(), torch.full((int(known.sum()),), half))


def test_the_smallest_move_that_reaches_enough_is_taken():
    trial = Trial(3)
    reached = {
        0.0: [0.0, 0.1, 0.95],
        1.0: [0.5, 0.3, 2.0],
        2.0: [ENOUGH, math.nan, 1.0],
        3.0: [1.0, 0.2, 1.0],
    }
    for amount, shares in reached.items():
        images = torch.full((3, 1, 2, 2), int(amount), dtype=torch.uint8)
        trial.offer(amount, images, torch.full((3, 2), amount), torch.tensor(shares))
    assert trial.amounts.tolist() == [2.0, 1.0, 0.0]
    assert trial.images[:, 0, 0, 0].tolist() == [2, 1, 0] and trial.scores[:, 0].tolist() == [2.0, 1.0, 0.0]
    assert trial.before.unique().tolist() == [0.0]
    torch.testing.assert_close(trial.reached, torch.tensor([ENOUGH, 0.3, 0.95]))


def test_figures_of_an_edit_are_those_of_its_pictures(scenes, lia):
    metrics = pytest.importorskip("skimage.metrics")
    predictor = load_predictor(bundled("scenes-predictor"), lia)
    (direction,) = directions_of("scenes-lia", lia, "daylight")
    images = scenes.first("test", N).images
    found = Encoder("w").invert(lia, images)
    editing = Editability(scenes, {"lia": [direction]}, predictor)
    (edit,) = editing.measure("lia", lia, Encoder("w"), found, images)
    assert editing.measure("other", lia, Encoder("w"), found, images) == []
    figures = edit.figures
    assert (figures.direction, figures.images, edit.rows.tolist()) == ("daylight", N, list(range(N)))

    factors = scenes.first_factors("test", N)
    attribute = attribute_of(scenes, predictor, direction)
    truth, wanted = requests(scenes, attribute, N)
    factors[:, COLUMN["daylight"]] = wanted.numpy()
    assert torch.equal(edit.target, torch.from_numpy(render(factors, 32).images))

    def median(first, second):
        pairs = zip(first.numpy(), second.numpy(), strict=True)
        return float(np.median([metrics.peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs]))

    def lower(first, second):  # torch's median is the lower of the middle two
        pairs = zip(first.numpy(), second.numpy(), strict=True)
        return sorted(metrics.peak_signal_noise_ratio(a, b, data_range=255) for a, b in pairs)[(N - 1) // 2]

    assert figures.psnr == pytest.approx(lower(edit.target, edit.images), abs=0.01)
    assert figures.unedited == pytest.approx(lower(edit.target, images), abs=0.01)
    assert figures.low <= median(edit.target, edit.images) <= figures.high
    assert figures.psnr > figures.unedited + 3 and figures.back > 22

    # The pictures are those of moved codes, each of the smallest amount that reaches enough.
    column = column_of(predictor.scores, "daylight")
    sign = torch.sign(wanted - truth)
    shares = []
    for amount in AMOUNTS:
        moved = lia.decode_bytes(shift(found.codes, direction, amount * sign))
        scores = predict_images(predictor, moved.float() / 255, lia.device)[:, column]
        shares.append((scores - truth) / (wanted - truth))
    every = torch.stack(shares)
    first = (every >= ENOUGH).float().argmax(0).where((every >= ENOUGH).any(0), every.argmax(0))
    reached = every.gather(0, first[None])[0].clamp(0, 1).mean()
    assert figures.reached == pytest.approx(float(reached), abs=0.01) and figures.reached > 0.9


def test_an_exact_inverse_without_a_move_returns_every_byte(scenes):
    """Codes that already show what is requested are not moved, before or after the second inversion."""
    glow = flows.load(bundled("scenes-glow")).eval()
    predictor = load_predictor(bundled("scenes-predictor"), glow)

    class Content:
        """A predictor that always reads what was requested."""

        scores = predictor.scores

        def predict(self, images):
            values = torch.zeros(len(images), len(self.scores))
            values[:, column_of(self.scores, "daylight")] = wanted.repeat(-(-len(images) // N))[: len(images)]
            return values

    (direction,) = directions_of("scenes-glow", glow, "daylight")
    _, wanted = requests(scenes, attribute_of(scenes, predictor, direction), N)
    images = scenes.first("test", N).images
    found = Exact().invert(glow, images)
    (edit,) = Editability(scenes, {"glow": [direction]}, Content()).measure(
        "glow", glow, Exact(), found, images
    )
    assert torch.equal(edit.images, images) and torch.equal(edit.undone, images[:8])
    assert edit.figures.back == math.inf and edit.figures.reached == 1


def test_what_cannot_be_edited_is_refused(scenes, lia):
    predictor = load_predictor(bundled("scenes-predictor"), lia)
    hue = directions_of("scenes-lia", lia, "wall_hue cos", "category: church")
    for each in hue:
        with pytest.raises(UserError, match="expected a factor of scenes with two values or a range"):
            Editability(scenes, {"lia": [each]}, predictor)
    with pytest.raises(UserError, match="digits cannot render an image again"):
        Editability(Digits(), {}, predictor)


def test_a_factor_that_few_images_have_gives_no_figures(scenes, lia):
    predictor = load_predictor(bundled("scenes-predictor"), lia)
    images = scenes.first("test", N).images
    lamp = directions_of("scenes-lia", lia, "lamp_on")
    (edit,) = Editability(scenes, {"lia": lamp}, predictor).measure(
        "lia", lia, Encoder("w"), Encoder("w").invert(lia, images), images
    )
    assert 0 < edit.figures.images < 10 and math.isnan(edit.figures.psnr) and not len(edit.rows)


@pytest.mark.parametrize("fail", [False, True])
def test_compare_edits_along_directions(fail, tmp_path, monkeypatch, capsys):
    words = [
        "compare", "--models", bundled("scenes-lia"), bundled("scenes-pggan"), "--inverters", "encoder:w",
        "--images", "test:24", "--perceptual", "none", "--edits", "false", "--out", str(tmp_path),
    ]  # fmt: skip
    if fail:
        with pytest.raises(SystemExit) as ended:
            main([*words, "--directions", "nothing"])
        assert ended.value.code == 2 and "no model has directions named nothing" in capsys.readouterr().err
        return
    main([*words, "--directions", "lamp_on", "--resume", "true"])
    printed = capsys.readouterr().out
    assert "scenes-pggan is not edited along lamp_on" in printed and "edited" in printed
    first = json.loads((tmp_path / "table.json").read_text())
    (row,) = (each for each in first["rows"] if each["model"] == "scenes-lia")
    (edit,) = row["each_edit"]
    assert edit["direction"] == "lamp_on" and row["edited"] == edit["psnr"] and row["back"] == edit["back"]
    assert 10 <= edit["images"] < 24 and first["loss"] == "pixels"
    assert (tmp_path / "edit-lamp-on.png").is_file() and "true edit" in (tmp_path / "index.html").read_text()
    summary = (tmp_path / "summary.md").read_text()
    assert "| scenes-lia | encoder:w | lamp_on |" in summary and "searches minimise pixels" in summary
    monkeypatch.setattr(Encoder, "invert", lambda *_: pytest.fail("the finished pair was run again"))
    main([*words, "--directions", "lamp_on", "--resume", "true"])
    assert json.loads((tmp_path / "table.json").read_text()) == first
