"""Dissection against a planted unit: a channel that is the mask of a class, and alone draws it."""

import re
from functools import partialmethod
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from sklearn.metrics import jaccard_score, mutual_info_score

from flows import images as pixels
from flows.core import once
from flows.dissection.agreement import best_by_class, best_layer, counts, dissect, released_labels
from flows.dissection.artefacts import clean, without
from flows.dissection.causal import ablate, average_causal_effect, class_means, class_pixels
from flows.dissection.exemplars import exemplars_of_codes, exemplars_of_images, ways_to_draw
from flows.dissection.intervention import insertion, learn_units
from flows.dissection.omission import energy_by_class, energy_maps, omissions
from flows.dissection.paint import Canvas, grown, paint, repaint, soft
from flows.dissection.probe import CODE, Change, Probe, instrument, layers_of, networks_inside
from flows.dissection.tally import AgreementTally, Extremes, Quantiles, quantile_shares
from flows.dissection.unit_brush import UnitBrush, find_units
from flows.metrics.frechet import frechet, half_split_floor
from flows.models.base import LatentModel, LayerShape, Space
from flows.models.codes import Codes
from flows.models.dcgan import DCGAN
from flows.models.glow import Glow
from flows.models.priors import make_prior

SIDE, UNITS = 16, 8
DRAWS = 5
"""The unit that is the mask of the square."""


class Planted(LatentModel):
    """Codes to eight maps, one of them a square at a place that the code says, and a picture of that one."""

    def __init__(self):
        super().__init__()
        self.image_shape, self.bins = (1, SIDE, SIDE), 256
        levels = {"all": slice(0, UNITS + 2)}
        self.spaces = {"z": Space("z", (UNITS + 2,), make_prior("normal"), levels, "", density=True)}
        self.description = {}
        self.maps = torch.nn.Identity()
        self.paint = torch.nn.Conv2d(UNITS, 1, 1)
        with torch.no_grad():
            self.paint.weight.zero_()
            self.paint.weight[0, DRAWS] = 0.6
            self.paint.bias.fill_(0.2)

    def encode(self, images, space="z", labels=None):
        raise ValueError("Planted has no encoder")

    def decode(self, code, space="z", labels=None):
        place = (torch.sigmoid(code[:, :2]) * (SIDE - 6)).long()
        at = torch.arange(SIDE)
        inside = [(at >= place[:, i : i + 1]) & (at < place[:, i : i + 1] + 6) for i in (0, 1)]
        square = (inside[0][:, :, None] & inside[1][:, None, :]).float()
        waves = torch.sin(
            code[:, 2:, None, None] * 3 + at[:, None] * 0.7 + at * 0.3 * code[:, 2:, None, None]
        )
        maps = waves.clone()
        maps[:, DRAWS] = square
        return self.paint(self.maps(maps))

    def layers(self):
        return {"maps": LayerShape(UNITS, (SIDE, SIDE))}


class Bright:
    name = "bright"
    classes = ("dark", "square")

    def probabilities(self, images):
        bright = (images[:, 0] > 0.5).float()
        return torch.stack([1 - bright, bright], 1)

    def segment(self, images):
        return self.probabilities(images) > 0.5


@pytest.fixture(scope="module")
def model():
    return Planted().eval()


@pytest.fixture(scope="module")
def codes(model):
    return model.sample(200, seed=0)


# Instrument ---------------------------------------------------------------------------------------


def test_an_instrument_leaves_no_trace_even_after_an_exception(model):
    codes = model.sample(3, seed=0)
    with torch.no_grad():
        before = model.decode_codes(codes)
        with instrument(model) as probe:
            probe.change("maps", Change(torch.ones(1), torch.ones(1)))
            assert not torch.equal(probe.decode(codes), before)
            probe.undo("maps")
            assert torch.equal(probe.decode(codes), before)
        with pytest.raises(RuntimeError, match="on purpose"), instrument(model) as probe:
            probe.change("maps", Change(torch.ones(1), torch.zeros(1)))
            probe.decode(codes)
            raise RuntimeError("on purpose")
        assert torch.equal(model.decode_codes(codes), before)
    assert not model.maps._forward_hooks


def test_a_change_is_where_its_mask_is_and_nowhere_else(model):
    codes = model.sample(2, seed=0)
    mask = torch.zeros(UNITS, SIDE, SIDE)
    mask[DRAWS, 2:5, 3:9] = 0.25
    with torch.no_grad(), instrument(model) as probe:
        probe.retain("maps")
        before = probe.decode(codes)
        h = probe.kept["maps"][:, DRAWS].clone()
        probe.change("maps", Change(mask, torch.tensor(2.0)))
        after = probe.decode(codes)
    expected = 0.6 * (0.75 * h + 0.25 * 2.0) + 0.2
    torch.testing.assert_close(after[:, 0, 2:5, 3:9], expected[:, 2:5, 3:9])
    outside = (mask[DRAWS] == 0).expand(2, -1, -1)
    assert torch.equal(after[:, 0][outside], before[:, 0][outside])


def test_parts_of_a_flows_code_are_layers_too_and_are_restored_bit_for_bit():
    torch.manual_seed(0)
    flow = Glow((3, 16, 16), levels=2, depth=1, width=8).eval()
    layers = layers_of(flow, "z")
    assert layers["code/level2"] == LayerShape(24, (4, 4)) and layers["code/level1"] == LayerShape(6, (8, 8))
    codes = flow.sample(2, seed=0)
    with torch.no_grad(), instrument(flow) as probe:
        before = probe.decode(codes)
        probe.retain(CODE + "level1")
        amount = torch.zeros(6, 8, 8)
        amount[2, 3, 4] = 1
        probe.change(CODE + "level1", Change(amount, torch.tensor(5.0)))
        changed = probe.decode(codes)
        where = flow.spaces["z"].levels["level1"]
        by_hand = codes.values.clone()
        by_hand[:, where.start + 2 * 64 + 3 * 8 + 4] = 5.0
        assert torch.equal(changed, flow.decode(by_hand)) and not torch.equal(changed, before)
        assert torch.equal(probe.kept[CODE + "level1"].flatten(1), codes.values[:, where])
        probe.undo()
        assert torch.equal(probe.decode(codes), before)


def test_a_flows_coupling_networks_are_found_inside_its_layers():
    """Ours say so: in each of 2 levels × 2 steps a network of two hidden layers of 32."""
    flow = Glow((3, 8, 8), levels=2, depth=2, width=32)
    inside = networks_inside(flow)
    assert len(inside) == 8 and all(".network." in name for name in inside)
    assert {flow.layers()[name].channels for name in inside} == {32}
    assert networks_inside(DCGAN((3, 32, 32), size=8, channels=[8, 8, 8])) == []


def test_unknown_layers_are_named(model):
    with (
        instrument(model) as probe,
        pytest.raises(ValueError, match="no layer 'other'; expected one of maps"),
    ):
        probe.retain("other")


# Counting -----------------------------------------------------------------------------------------


def test_agreement_is_scikit_learns_whatever_the_batch():
    random = torch.Generator().manual_seed(0)
    activations = torch.randn(12, 3, 8, 8, generator=random)
    masks = torch.rand(12, 4, 8, 8, generator=random) < torch.tensor([0.5, 0.1, 0.9, 0.3])[:, None, None]
    masks[:, 0] = activations[:, 1] > 0.4
    thresholds = torch.tensor([[0.0, 1.0], [0.4, -1.0], [2.0, 0.1]])
    found = []
    for batch in (12, 5, 1):
        tally = AgreementTally(thresholds, 4)
        for part in range(0, 12, batch):
            tally.add(activations[part : part + batch], masks[part : part + batch])
        found.append((tally.iou(), tally.information_quality(), tally.agreement()))
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert torch.equal(a, b)
    iou, quality, agreement = found[0]
    for unit in range(3):
        for cut in range(2):
            active = (activations[:, unit] > thresholds[unit, cut]).flatten().numpy()
            for label in range(4):
                truth = masks[:, label].flatten().numpy()
                assert float(iou[unit, cut, label]) == pytest.approx(jaccard_score(truth, active))
                assert float(agreement[unit, cut, label]) == pytest.approx((truth == active).mean())
                joint = np.histogram2d(truth, active, 2)[0].ravel() / truth.size
                entropy = -sum(p * np.log(p) for p in joint if p > 0)
                expected = mutual_info_score(truth, active) / entropy
                assert float(quality[unit, cut, label]) == pytest.approx(expected, abs=1e-9)
    assert float(iou[1, 0, 0]) == 1 and float(quality[1, 0, 0]) == pytest.approx(1)


def quantiles_of(parts):
    """Quantiles of a stream, which is read twice."""
    extremes = Extremes()
    for part in parts:
        extremes.add(part)
    streamed = Quantiles(extremes)
    for part in parts:
        streamed.add(part)
    return streamed


def test_quantiles_of_a_stream_are_those_of_the_whole():
    random = torch.Generator().manual_seed(0)
    values = torch.randn(40, 2, 25, 25, generator=random) * torch.tensor([1.0, 3.0])[:, None, None]
    shares = torch.tensor([0.5, 0.1, 0.01])
    found = quantiles_of(values.split(7)).at(shares)
    for unit in range(2):
        expected = np.quantile(values[:, unit].numpy(), [0.5, 0.9, 0.99])
        np.testing.assert_allclose(found[unit], expected, atol=0.002 * (1 + 2 * unit))
    assert torch.equal(quantiles_of([values]).at(shares), found)
    with pytest.raises(ValueError, match="at least one image"):
        Quantiles(Extremes())


def test_thresholds_are_quantiles_within_one_percent():
    """The activations are heavy-tailed, and half of them are 0, as behind a ReLU; their threshold is 0."""
    random = torch.Generator().manual_seed(0)
    values = torch.randn(400, 2, 48, 48, generator=random).relu() ** 1.5
    shares = quantile_shares()[1:]
    found = quantiles_of(values.split(33)).at(shares)
    for unit in range(2):
        exact = np.quantile(values[:, unit].numpy(), 1 - shares.numpy())
        assert (found[unit].numpy()[exact == 0] == 0).all() and (exact == 0).any()
        # Relative to the unit's std, where a threshold is close to 0.
        scale = np.maximum(exact, float(values[:, unit].std()))
        assert (np.abs(found[unit].numpy() - exact) < 0.01 * scale).all()


def test_the_released_rule_is_that_of_gan_dissection():
    """Spelled out for every unit, class and threshold, with the mutual information of scikit-learn."""
    random = torch.Generator().manual_seed(4)
    masks = torch.rand(6, 3, 24, 24, generator=random) < torch.tensor([0.3, 0.1, 0.0])[:, None, None]
    masks[0, 2, 0, 0] = True  # one pixel of 3,456 is too rare
    noise = torch.randn(6, 4, 24, 24, generator=random)
    activations = noise + 3 * torch.cat([masks.float(), torch.zeros(6, 1, 24, 24)], 1) - 1
    activations[:, 3] = -activations[:, 3].abs() - masks[:, 0].float()  # informative, but never above 0
    shares = torch.tensor([1.0, 0.5, 0.3, 0.1, 0.01])
    tally = AgreementTally(quantiles_of([activations]).at(shares), 3)
    tally.add(activations, masks)
    label, level, has = released_labels(tally, shares)
    for unit in range(4):
        best = (0.0, 0, 0)
        for i in range(1, 5):
            threshold = float(tally.thresholds[unit, i])
            active = (activations[:, unit] > threshold).flatten().numpy()
            for kind in range(3):
                truth = masks[:, kind].flatten().numpy()
                if threshold <= 0 or truth.mean() < 1e-3 or (truth == active).mean() <= 0.8:
                    continue
                pairs = np.bincount(2 * truth + active, minlength=4) / len(truth)
                entropy = -sum(p * np.log(p) for p in pairs if p > 0)
                value = mutual_info_score(truth, active) / entropy if entropy > 0 else 0.0
                if value > best[0] + 1e-12:
                    best = (value, kind, i)
        assert bool(has[unit]) == (best[0] > 0)
        if best[0] > 0:
            assert (int(label[unit]), int(level[unit])) == best[1:]
    assert has.tolist() == [True, True, True, False]


# Units --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["information", "quantile"])
def test_the_planted_unit_has_iou_one(model, codes, scheme):
    share = 1.2 * 36 / SIDE**2  # a little more, so that the threshold lies below the plateau
    found = dissect(model, Bright(), codes, ["maps"], scheme, share=share)
    rows, best = found["maps"].rows_by_iou(), best_by_class(found)["square"]
    assert best.unit == DRAWS and best.interpretable
    assert best.iou == pytest.approx(1, abs=1e-6)
    others = [row.iou for row in rows if row.unit != DRAWS and row.label == "square"]
    assert max(others, default=0) < 0.4
    units, labelled_units, labels = counts(rows)["maps"]
    assert units == UNITS and 1 <= labelled_units <= UNITS and labels >= 1


def test_known_masks_are_taken_before_the_segmenter(model, codes):
    """The truth, where there is one: turned upside down, the planted unit agrees with it no more."""
    with torch.no_grad():
        images = model.decode_codes(codes)
    right = (images[:, 0] > 0.5).byte()
    for masks, least, most in ((right, 0.999, 1.0), (right.flip(1), 0.0, 0.6)):
        rows = dissect(model, Bright(), codes, ["maps"], masks=masks)["maps"].rows_by_iou()
        value = rows[DRAWS].iou if rows[DRAWS].label == "square" else 0.0
        assert least <= value <= most


def test_without_the_planted_unit_the_class_is_gone(model, codes):
    order = [DRAWS, *(i for i in range(UNITS) if i != DRAWS)]
    found = ablate(model, Bright(), codes, "maps", "square", order, sizes=(1, 2, 5))
    assert found.removed == [1.0, 1.0, 1.0] and found.sizes == [1, 2, 5]
    wrong = ablate(model, Bright(), codes, "maps", "square", order[1:], sizes=(1, 5))
    assert wrong.removed == [0.0, 0.0]
    assert 0 <= found.random[0] < 0.9


def test_the_causal_effect_of_the_planted_unit_is_one(model, codes):
    """Put in everywhere it draws the square everywhere, taken out nowhere: an effect of 1 of all pixels."""
    values = class_means(model, Bright(), codes, "maps", "square")
    assert float(values[DRAWS]) == pytest.approx(1, abs=1e-5)
    assert average_causal_effect(model, Bright(), codes, "maps", "square", [DRAWS], values) == 1.0
    other = [i for i in range(UNITS) if i != DRAWS]
    assert average_causal_effect(model, Bright(), codes, "maps", "square", other, values) == 0.0


def test_pixels_are_counted_the_same_for_any_batch(model, codes, monkeypatch):
    whole = class_pixels(model, Bright(), codes)
    assert whole.sum() == 200 * SIDE**2 and (whole[:, 1] == 36).all()
    monkeypatch.setattr(Probe, "batches", partialmethod(Probe.batches, size=7))
    assert torch.equal(class_pixels(model, Bright(), codes), whole)


def test_a_class_that_is_nowhere_is_said(model):
    class Blind(Bright):
        def segment(self, images):
            return torch.zeros(len(images), 2, SIDE, SIDE, dtype=torch.bool)

    few = model.sample(5, seed=0)
    with pytest.raises(ValueError, match="none of the 5 images contains the class 'square'"):
        ablate(model, Blind(), few, "maps", "square", [DRAWS])
    with pytest.raises(ValueError, match="none of the 5 images contains the class 'square'"):
        class_means(model, Blind(), few, "maps", "square")


# Omissions ----------------------------------------------------------------------------------------


def test_the_frechet_distance_is_scipys_and_has_its_closed_forms():
    random = torch.Generator().manual_seed(0)
    first = torch.randn(300, 5, generator=random) @ torch.randn(5, 5, generator=random)
    second = torch.randn(400, 5, generator=random) + 0.5
    assert frechet(first, first).total == pytest.approx(0, abs=1e-9)
    shift = torch.tensor([1.0, -2.0, 0.0, 0.5, 0.0])
    moved = frechet(first, first + shift)
    assert moved.mean == pytest.approx(float(shift.square().sum()), rel=1e-5)
    assert moved.covariance == pytest.approx(0, abs=1e-4)
    c1, c2 = (np.cov(each.double().numpy().T) for each in (first, second))
    expected = np.trace(c1 + c2 - 2 * np.real(scipy.linalg.sqrtm(c1 @ c2)))
    assert frechet(first, second).covariance == pytest.approx(expected, rel=1e-6)


def test_the_floor_is_what_equal_distributions_are_apart():
    random = torch.Generator().manual_seed(0)
    one, other = (torch.randn(1000, 4, generator=random) for _ in range(2))
    floor = half_split_floor(torch.cat([one, other]))
    assert frechet(one, other).total < 3 * floor.total
    assert frechet(one, other + 1).total > 20 * floor.total


def test_a_withheld_class_leads_the_omissions():
    """Twelve classes of random shares; in the samples one is missing, one halved, and a rare one unlucky."""
    random = torch.Generator().manual_seed(0)
    usual = torch.rand(12, generator=random) * 5 + 0.5

    def draw(n):
        present = torch.rand(n, 12, generator=random) < torch.tensor([0.5] * 11 + [0.02])
        return present * usual * torch.rand(n, 12, generator=random)

    data, samples_ = draw(1500), draw(1500)
    samples_[:, 4] = 0
    samples_[:, 7] *= 0.5
    names = [f"class {i}" for i in range(12)]
    found = omissions(data, samples_, names)
    assert [row.label for row in found.rows[:2]] == ["class 4", "class 7"]
    first = found.rows[0]
    assert first.relative == -1 and first.samples == 0 and first.samples_images == 0
    assert found.rows[1].low < -0.5 < found.rows[1].high
    assert found.distance.total > 3 * found.floor.total
    same = omissions(data, draw(1500), names)
    assert sum(row.low < 0 < row.high for row in same.rows) >= len(same.rows) - 2


def test_energy_maps_sum_to_the_energy_of_the_code():
    torch.manual_seed(0)
    flow = Glow((3, 16, 16), levels=2, depth=1, width=8).eval()
    images = torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    maps = energy_maps(flow, images)
    with torch.no_grad():
        code = flow.encode(pixels.to_unit(images))
    torch.testing.assert_close(maps.sum((1, 2)), code.square().sum(1) / 2, rtol=1e-4, atol=1e-3)
    with pytest.raises(ValueError, match="no exact code with spatial levels"):
        energy_maps(Planted(), torch.zeros(1, 1, 16, 16, dtype=torch.uint8))


def test_energy_by_class_is_the_mean_over_its_pixels():
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (60, 8, 8), generator=random)
    labels[labels == 3] = torch.where(torch.rand(60, generator=random) < 0.2, 3, 0)[:, None, None].expand_as(
        labels
    )[labels == 3]
    masks = torch.stack([labels == i for i in range(5)], 1)  # of the last class there is nothing
    maps = torch.rand(60, 8, 8, generator=random) + 2 * (labels == 3)
    rows = energy_by_class(maps, masks, ["a", "b", "c", "rare", "none"])
    assert rows[0].label == "rare" and {row.label for row in rows} == {"a", "b", "c", "rare"}
    for row in rows:
        there = labels == ["a", "b", "c", "rare"].index(row.label)
        assert row.energy == pytest.approx(float(maps[there].double().mean()))
        assert row.low < row.energy < row.high
        assert row.images == pytest.approx(float(there.flatten(1).any(1).double().mean()))


# Painting -----------------------------------------------------------------------------------------


def test_painting_changes_what_is_under_the_brush_and_undo_is_exact(model):
    codes = model.sample(1, seed=3)
    original = model.decode_bytes(codes)[0]
    values = torch.zeros(UNITS)
    values[DRAWS] = 1
    brush = UnitBrush("square", "maps", (DRAWS,), values)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[1:4, 1:4] = True
    with instrument(model) as probe:
        painted = paint(probe, codes, original, [(brush, mask, "draw")], margin=0)
        assert painted.outside == 0 and torch.equal(painted.image[0][~mask], original[0][~mask])
        assert (painted.image[0][mask] >= 203).all()
        erased = paint(probe, codes, original, [(brush, torch.ones_like(mask), "erase")])
        assert ((erased.image.int() - 51).abs() <= 1).all()
        again = paint(probe, codes, original, [(brush, mask, "draw"), (brush, mask, "erase")], margin=0)
        assert ((again.image[0][mask].int() - 51).abs() <= 1).all()
        assert torch.equal(repaint(probe, codes, original, again.stroke_edits, margin=0), again.image)
        undone = paint(probe, codes, original, [])
        assert torch.equal(undone.image, original) and not undone.changed.any()
        assert painted.layers == {"maps": 1} and undone.layers == {}
    faint = brush.change(mask, (SIDE, SIDE), "draw", strength=0.5)
    assert float(faint.amount.max()) == 0.5
    small = brush.change(mask, (4, 4), "draw")
    assert small.amount[DRAWS].sum() == 1 and small.amount[DRAWS, 0, 0] == 1


def test_a_brush_of_exemplars_draws_the_class_under_it_and_erases_it_where_it_is(model):
    pictures = exemplars_of_codes(model, Bright(), model.sample(300, seed=0))
    brush = pictures.brush(model, "square")
    assert brush.ways == (("maps",),)
    code = torch.zeros(1, UNITS + 2)
    code[0, :2] = -4  # a square in the upper left corner
    codes = Codes(code, "z")
    original = model.decode_bytes(codes)[0]
    own = original[0] > 127
    assert own[:6, :6].all() and own.sum() == 36
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[9:14, 8:14] = True
    with instrument(model) as probe:
        painted = paint(probe, codes, original, [(brush, mask, "draw")], margin=0)
        assert (painted.image[0] > 127)[mask].all() and painted.layers == {"maps": UNITS}
        assert torch.equal(painted.image[0][~mask], original[0][~mask])
        everywhere = torch.ones_like(mask)
        erased = paint(probe, codes, original, [(brush, everywhere, "erase")])
        assert not (erased.image[0] > 127).any()
        assert not erased.changed[~grown(own, 3)].any()
        nothing = paint(probe, codes, original, [(brush, mask, "erase")])
        assert torch.equal(nothing.image, original) and nothing.layers == {}
        both = paint(probe, codes, original, [(brush, mask, "draw"), (brush, everywhere, "erase")], margin=0)
        assert not (both.image[0] > 127).any()
        assert len(both.stages) == 2 and torch.equal(both.stages[1], both.image)
        assert torch.equal(both.stages[0], painted.image)
        corner = torch.zeros_like(mask)
        corner[-1, -1] = True  # no square reaches it
        with pytest.raises(ValueError, match="contains the class 'square' under the brush"):
            paint(probe, codes, original, [(brush, corner, "draw")])
    with pytest.raises(ValueError, match="there is no class 'dragon'"):
        pictures.brush(model, "dragon")
    with pytest.raises(ValueError, match="none of the 50 images contains the class 'text'"):
        exemplars_of_codes(model, Never(), model.sample(50, seed=0)).brush(model, "text")


def flow_and_noise(n):
    """A small Glow, n images of noise with their codes, and where a brush was."""
    torch.manual_seed(0)
    flow = Glow((3, 16, 16), levels=2, depth=1, width=8).eval()
    images = torch.randint(0, 256, (n, 3, 16, 16), dtype=torch.uint8)
    mask = torch.zeros(16, 16, dtype=torch.bool)
    mask[3:9, 4:12] = True
    return flow, images, flow.encode_bytes(images), mask


def test_a_picture_painted_after_itself_keeps_its_bytes_for_a_flow():
    """The exemplar's code is the picture's own; a flow is painted with all parts of its code."""
    flow, image, codes, mask = flow_and_noise(1)
    pictures = exemplars_of_codes(flow, Bright(), codes)
    assert ways_to_draw(flow, "z") == [("code/level2", "code/level1")]
    with instrument(flow, "z") as probe:
        painted = paint(probe, codes, image[0], [(pictures.brush(flow, "square"), mask, "draw")])
        other = exemplars_of_codes(flow, Bright(), flow.sample(20, seed=0)).brush(flow, "square")
        strokes = [(other, mask, "draw"), (other, mask.roll(4, 0), "draw")]
        twice = paint(probe, codes, image[0], strokes)
        assert torch.equal(repaint(probe, codes, image[0], twice.stroke_edits), twice.image)
        once = paint(probe, codes, image[0], strokes[:1]).image
        late = soft(twice.stroke_edits[1].where, 2) == 0
        assert twice.changed.any() and torch.equal(twice.image[:, late], once[:, late])
    assert torch.equal(painted.image, image[0]) and painted.outside == 0
    assert painted.layers == {"code/level2": 24, "code/level1": 6}


def test_pictures_of_a_flow_are_encoded_when_they_are_needed():
    """A flow draws its pictures as they are: codes found at once or for a stroke paint the same."""
    flow, images, codes, mask = flow_and_noise(24)
    others = images[1:]
    early = exemplars_of_codes(flow, Bright(), codes[1:])
    late = exemplars_of_images(flow, Bright(), others, "z")
    assert torch.equal(early.images, others) and torch.equal(early.masks, late.masks)
    chosen = torch.tensor([7, 3])
    torch.testing.assert_close(late.codes(flow, chosen).values, codes[1 + chosen].values)
    with instrument(flow, "z") as probe:
        strokes = [[(each.brush(flow, "square"), mask, "draw")] for each in (early, late)]
        first, second = (paint(probe, codes[:1], images[0], stroke) for stroke in strokes)
    assert first.changed.any() and (first.image.int() - second.image.int()).abs().max() <= 1


def test_what_the_model_lost_stays_where_the_picture_stays_and_is_no_ghost_where_it_changes(model):
    original = torch.full((1, SIDE, SIDE), 51, dtype=torch.uint8)
    original[0, 4:8, 4:8] = 77  # a detail that the model does not draw
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2:10, 2:10] = True
    before = torch.full((1, 1, SIDE, SIDE), 51.5 / 256)
    with instrument(model) as probe:
        canvas = Canvas(probe, Codes(torch.zeros(1, UNITS + 2), "z"), original, margin=0)
        same = canvas.composed(before, before, mask)
        changed = canvas.composed(before, before + 0.5, mask)
    assert torch.equal(pixels.to_bytes(same)[0], original)
    assert torch.allclose(changed[0, 0][mask], torch.tensor(51.5 / 256 + 0.5))
    assert torch.equal(pixels.to_bytes(changed)[0][:, ~mask], original[:, ~mask])


def test_the_margin_falls_to_nothing():
    mask = torch.zeros(9, 9, dtype=torch.bool)
    mask[4, 4] = True
    assert [round(float(v), 3) for v in soft(mask, 3)[4, 4:]] == [1, 0.75, 0.5, 0.25, 0]


# Artefacts and interventions ----------------------------------------------------------------------


class Soft(Bright):
    """Threshold with a gradient."""

    def probabilities(self, images):
        bright = torch.sigmoid(30 * (images[:, 0] - 0.5))
        return torch.stack([1 - bright, bright], 1)


class Never(Bright):
    """Knows a class that is in no image."""

    classes = ("dark", "square", "text")

    def probabilities(self, images):
        two = super().probabilities(images)
        return torch.cat([two, torch.zeros_like(two[:, :1])], 1)


def test_switching_an_artefact_off_brings_samples_to_clean_images(model, codes):
    """Clean images have no square; what is left of one when its unit is off is nothing."""
    found = dissect(model, Bright(), codes, ["maps"])
    clean_images = torch.full((150, 1, SIDE, SIDE), 51, dtype=torch.uint8)
    mixed = torch.cat([clean_images, torch.full((5, 1, SIDE, SIDE), 250, dtype=torch.uint8)])
    real = without(mixed, Bright(), "square", model)
    assert len(real) == 150 and best_layer(found, "square") == "maps"
    result = clean(
        model, Bright(), model.sample(60, seed=9), "maps", "square", found["maps"].order("square"), real,
        lambda images: images.flatten(1).double() / 255, sizes=(0, 1, 2),
    )  # fmt: skip
    assert result.units[0] == DRAWS and result.sizes == [0, 1, 2]
    assert result.images == [1, 0, 0] and result.area == pytest.approx([36 / SIDE**2, 0, 0])
    assert result.distance[0] > 0.01 and abs(result.distance[1]) < 1e-9
    assert result.shown[0].shape == (12, 1, SIDE, SIDE) and result.shown[1].max() == 51
    with pytest.raises(ValueError, match="5 of 10 real images are without a square"):
        without(mixed[145:], Bright(), "square", model)


def test_a_class_that_no_unit_agrees_with_has_no_layer(model):
    """Every IoU of a class that covers almost no pixel is 0, so its first unit would be arbitrary."""

    found = dissect(model, Never(), model.sample(60, seed=0), ["maps"])
    assert best_layer(found, "text") is None and best_layer(found, "square") == "maps"
    with pytest.raises(ValueError, match="no unit of maps agrees with 'text'"):
        find_units(model, Never(), "z", "text", ["maps"], n=60)


def test_learning_finds_the_unit_that_draws(model, codes):
    alpha = learn_units(model, Soft(), codes, "maps", "square", torch.ones(UNITS), steps=60, penalty=0.5)
    assert int(alpha.argmax()) == DRAWS and float(alpha[DRAWS]) > 0.9
    others = torch.cat([alpha[:DRAWS], alpha[DRAWS + 1 :]])
    assert float(others.max()) < 0.2
    assert all(each.requires_grad and each.grad is None for each in model.parameters())
    with pytest.raises(ValueError, match="none of the 50 images contains the class 'text'"):
        learn_units(model, Never(), model.sample(50, seed=0), "maps", "text", torch.ones(UNITS))
    brush = find_units(model, Soft(), "z", "square", ["maps"], units=1, order="learned", n=100)
    assert brush.units == (DRAWS,)


def test_learning_sees_what_agreement_does_not(model, codes):
    """It begins with the wrong unit, and ends with the one whose loss removes the class."""
    wrong = torch.zeros(UNITS)
    wrong[(DRAWS + 1) % UNITS] = 1
    values = torch.ones(UNITS)
    alpha = learn_units(model, Soft(), codes, "maps", "square", values, wrong, steps=60, penalty=0.5)
    assert int(alpha.argmax()) == DRAWS


def test_an_insertion_fills_what_it_is_set_at(model):
    few = model.sample(20, seed=4)
    whole = insertion(model, Bright(), few, "maps", "square", [DRAWS], torch.ones(UNITS))
    with torch.no_grad():
        had = Bright().segment(model.decode_codes(few))[:, 1].float()
    places = had.unflatten(1, (4, 4)).unflatten(3, (4, 4)).mean((2, 4))
    torch.testing.assert_close(whole.gains, 1 - places)  # all of the patch, less what was there
    assert list(whole.contexts) == ["dark"]
    nothing = insertion(model, Bright(), few, "maps", "square", [0], torch.ones(UNITS))
    assert nothing.gains.abs().max() == 0
    odd = insertion(model, Bright(), few, "maps", "square", [DRAWS], torch.ones(UNITS), rows=3)
    assert float((odd.gains + odd_places(had)).sub(1).abs().max()) < 1e-6


def odd_places(had):
    """Share of each of 3 × 3 unequal places of 16 that had the square already."""
    cuts = [slice(0, 5), slice(5, 10), slice(10, 16)]
    return torch.stack([torch.stack([had[:, y, x].mean((1, 2)) for x in cuts], 1) for y in cuts], 1)


def test_what_looks_may_break_and_nothing_is_left_behind(model, codes):
    """A segmenter that raises: no hook, no kernel kept ready; and none is asked to record gradients."""

    class Broken(Bright):
        def segment(self, images):
            assert not torch.is_grad_enabled()
            raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose") as kept:
        class_pixels(model, Broken(), codes, [("maps", Change(torch.ones(1), torch.zeros(1)))])
    assert kept is not None and once._store.get() is None and not model.maps._forward_hooks


def test_the_quick_dissection_prints_what_its_page_says(capsys):
    """Figures may differ by another machine's arithmetic; classes and the effect may not."""
    page = (Path(__file__).parents[2] / "docs" / "tutorials" / "quick-dissection.md").read_text()
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)[1]
    assert len(code.splitlines()) <= 60
    exec(compile(code, "quick-dissection", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    shown = re.search(r"prints\n\n```\n(.*?)```", page, re.DOTALL)[1].splitlines()
    assert [line.split()[:3] for line in printed[:3]] == [line.split()[:3] for line in shown[:3]]
    before, after = map(int, re.findall(r"(\d+) (?:pixels|without)", printed[-1]))
    assert after < 0.8 * before
