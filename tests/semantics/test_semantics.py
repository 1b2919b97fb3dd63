"""Semantic models against planted truth: attributes that they learn, omit, and measure."""

import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torchvision
from sklearn.metrics import jaccard_score, r2_score

from flows import images as pixels
from flows.data.base import ArraySplit, Attribute, Batch
from flows.data.scenes import FACTORS, Scenes
from flows.data.scenes.factors import COLUMN, matters
from flows.errors import CheckpointError, UserError
from flows.images import IMAGENET_DEVIATION, IMAGENET_MEAN
from flows.models.load import load
from flows.semantics.adapters import ClassPredictor, ClassSegmenter
from flows.semantics.base import (
    Predictor,
    Segmenter,
    json_attributes,
    read_attributes,
    scores_of,
    true_scores,
)
from flows.semantics.load import load_semantic_model
from flows.semantics.predictor import AttributePredictor, calibration_error
from flows.semantics.segmenter import UNetSegmenter
from flows.training.augment import augment

KINDS = (
    Attribute("there", "binary"),
    Attribute("which", "category", classes=("a", "b", "c")),
    Attribute("size", "real", low=-2.0, high=2.0),
    Attribute("hue", "circular"),
)


@pytest.fixture(scope="module")
def scenes():
    return Scenes(images=16, validation=64, test=64, cache=None)


def predictor(attributes=KINDS, **options):
    torch.manual_seed(0)
    settings = {"channels": [8, 8], "hidden": 8, **options}
    return AttributePredictor((3, 16, 16), json_attributes(attributes), **settings).eval()


def random_images(n, side=16, seed=0):
    return torch.randint(256, (n, 3, side, side), generator=torch.Generator().manual_seed(seed)).byte()


def batch_of(images, attributes=None, masks=None):
    keys = torch.arange(len(images))
    return Batch(images, torch.full((len(images),), -1), keys, attributes, masks)


# Attributes ---------------------------------------------------------------------------------------


def test_scores_have_a_column_for_every_class_and_two_for_a_hue():
    scores = scores_of(KINDS)
    assert [s.name for s in scores] == [
        "there", "which: a", "which: b", "which: c", "size", "hue cos", "hue sin",
    ]  # fmt: skip
    truth = true_scores(KINDS, torch.tensor([[1.0, 2.0, -1.5, 0.25], [0.0, math.nan, 0.5, math.nan]]))
    torch.testing.assert_close(truth[0], torch.tensor([1.0, 0, 0, 1, -1.5, 0, 1]), atol=1e-6, rtol=0)
    assert truth[1].isnan().tolist() == [False, True, True, True, False, True, True]


def test_scenes_label_what_can_be_seen_and_nothing_else(scenes):
    split = scenes.split("test")
    names = [attribute.name for attribute in scenes.attributes]
    seen = matters(split.factors.numpy())
    for i, name in enumerate(names):
        column = COLUMN[name]
        known = split.attributes[:, i]
        assert np.array_equal(~known.isnan().numpy(), seen[:, column]), name
        assert torch.equal(known[~known.isnan()], split.factors[~known.isnan(), column])
    assert set(names) | {"tree_hue", "cloud_hue", "plant_hue"} == {factor.name for factor in FACTORS}
    batch = split.first(5)
    assert torch.equal(batch.masks, split.masks[:5]) and batch.attributes.shape == (5, len(names))


def test_attributes_survive_json():
    assert read_attributes(json_attributes(KINDS)) == KINDS


# Learning -----------------------------------------------------------------------------------------


def test_what_cannot_be_seen_changes_no_loss():
    semantic, images = predictor(), random_images(6)
    values = torch.rand(6, 4)
    values[:, 0].round_()
    values[:, 1] = torch.tensor([0, 1, 2, 0, 1, 2])
    values[3] = math.nan
    outputs = semantic(images)
    whole, _ = semantic.loss(outputs, batch_of(images, values))
    moved = outputs.clone()
    moved[3, : sum(semantic.widths)] += 100
    same, _ = semantic.loss(moved, batch_of(images, values))
    assert torch.equal(whole, same) and whole.isfinite()
    nothing, parts = semantic.loss(outputs, batch_of(images, torch.full((6, 4), math.nan)))
    assert nothing == parts["seen"] and set(parts) == {"seen"}


def test_the_gaussian_loss_is_least_where_its_variance_is_the_error():
    """Minimised by gradient descent, a head finds mean and variance of a normal sample."""
    semantic = predictor((Attribute("size", "real"),))
    target = 0.3 + 0.1 * torch.randn(2000, generator=torch.Generator().manual_seed(0))
    head = torch.zeros(2, requires_grad=True)
    optimiser = torch.optim.Adam([head], 0.05)
    for _ in range(400):
        optimiser.zero_grad()
        outputs = torch.cat([head.expand(2000, 2), torch.zeros(2000, 1)], 1)
        loss, _ = semantic.loss(outputs, batch_of(random_images(2000, 1), target[:, None]))
        loss.backward()
        optimiser.step()
    mean, log_variance = head.tolist()
    assert mean == pytest.approx(float(target.mean()), abs=2e-3)
    assert math.exp(0.5 * log_variance) == pytest.approx(float(target.std()), rel=0.02)


def test_calibration_finds_a_planted_temperature(monkeypatch):
    """Labels drawn from logits, which the network says three times too loudly."""
    semantic = predictor(KINDS[:2])
    generator = torch.Generator().manual_seed(0)
    n = 4000
    truth = 1.5 * torch.randn(n, 4, generator=generator)
    there = (torch.rand(n, generator=generator) < truth[:, 0].sigmoid()).float()
    which = torch.multinomial(truth[:, 1:].softmax(1), 1, generator=generator)[:, 0].float()
    split = ArraySplit(random_images(n, 4), attributes=torch.stack([there, which], 1))
    said = torch.cat([3 * truth, torch.ones(n, 2)], 1)
    monkeypatch.setattr("flows.semantics.base.outputs_on", lambda *_: (said, split.first(None)))
    before = semantic.measure(split, None).values
    semantic.calibrate(split, None)
    after = semantic.measure(split, None).values
    assert semantic.log_temperature.exp().tolist() == pytest.approx([3, 3], rel=0.12)
    for name in ("there", "which"):
        assert after[name]["calibration"] < 0.03 < before[name]["calibration"]
        assert after[name]["accuracy"] == before[name]["accuracy"]


def test_errors_say_what_they_are(monkeypatch):
    """R² by scikit-learn, and the predicted deviation holds 68 % after calibration."""
    semantic = predictor((Attribute("size", "real", low=-4.0, high=4.0),))
    generator = torch.Generator().manual_seed(0)
    target = 4 * torch.rand(4000, generator=generator) - 2
    error = 0.3 * torch.randn(4000, generator=generator)
    share = (target + error + 4) / 8
    outputs = torch.stack([share, torch.zeros(4000), torch.ones(4000)], 1)
    split = ArraySplit(random_images(4000, 4), attributes=target[:, None])
    monkeypatch.setattr("flows.semantics.base.outputs_on", lambda *_: (outputs, split.first(None)))
    semantic.calibrate(split, None)
    values = semantic.measure(split, None).values["size"]
    assert values["r2"] == pytest.approx(r2_score(target.numpy(), (target + error).numpy()), abs=1e-4)
    assert values["error"] == pytest.approx(0.3, rel=0.05)
    assert values["within"] == pytest.approx(0.683, abs=0.02)
    assert semantic.to_scores(torch.tensor([[-0.5, 0, 1], [1.5, 0, 1]])).flatten().tolist() == [-4, 4]
    assert semantic.scores[0].quality == 1  # nobody has looked at it
    semantic.note(semantic.measure(split, None))
    assert semantic.scores[0].quality == values["r2"]


def test_calibration_error_of_a_closed_form():
    confidence = torch.tensor([0.9] * 10 + [0.6] * 10)
    right = torch.tensor([True] * 9 + [False] + [True] * 2 + [False] * 8)
    assert calibration_error(confidence, right) == pytest.approx(0.5 * 0.0 + 0.5 * 0.4, abs=1e-6)


def test_iou_is_scikit_learns(scenes):
    torch.manual_seed(0)
    semantic = UNetSegmenter((3, 32, 32), list(scenes.mask_classes), channels=[8, 8]).eval()
    split = scenes.split("test")
    values = semantic.measure(split, None).values
    found = semantic.segment(pixels.to_unit(split.images)).to(torch.uint8).argmax(1).flatten().numpy()
    true = split.masks.flatten().numpy()
    labels = [scenes.mask_classes.index(name) for name in values]
    expected = jaccard_score(true, found, labels=labels, average=None)
    assert [values[name]["iou"] for name in values] == pytest.approx(expected.tolist())


@pytest.mark.parametrize("kind", ["predictor", "segmenter"])
def test_a_predictor_learns_what_can_be_seen(kind):
    """A square of random place and brightness on black: after a few hundred steps it is known."""
    generator = torch.Generator().manual_seed(0)
    n, side = 1024, 16
    place = torch.randint(0, side - 4, (n, 2), generator=generator)
    bright = torch.rand(n, generator=generator)
    rows = torch.arange(side)
    inside = [(rows >= place[:, i : i + 1]) & (rows < place[:, i : i + 1] + 4) for i in range(2)]
    mask = inside[0][:, :, None] & inside[1][:, None, :]
    images = (mask * (80 + 170 * bright)[:, None, None]).byte()[:, None].expand(-1, 3, -1, -1).contiguous()
    attributes = (Attribute("row", "real", high=side - 5.0), Attribute("bright", "real"))
    values = torch.stack([place[:, 0].float(), bright], 1)
    torch.manual_seed(0)
    if kind == "predictor":
        semantic = predictor(attributes, channels=[16, 16], hidden=32).train()
    else:
        semantic = UNetSegmenter((3, side, side), ["black", "square"], channels=[8, 8])
    split = ArraySplit(images, attributes=values)
    split.masks = mask.byte()
    optimiser = torch.optim.Adam(semantic.parameters(), 3e-3)
    for step in range(400):
        batch = split.__getitems__([(64 * step + i) % 896 for i in range(64)])
        optimiser.zero_grad()
        semantic.loss(semantic(batch.images), batch)[0].backward()
        optimiser.step()
    held = ArraySplit(images[896:], attributes=values[896:])
    held.masks = mask[896:].byte()
    figures = semantic.eval().measure(held, None).values
    for each in figures.values():
        assert next(iter(each.values())) > 0.95, figures


def test_predictions_say_nothing_of_what_is_not_seen():
    semantic = predictor()
    with torch.no_grad():
        semantic.network.head.bias[-4:] = torch.tensor([9.0, -9.0, 9.0, -9.0])
        found = semantic.predict(pixels.to_unit(random_images(3)))
    assert found.isnan()[0].tolist() == [False, True, True, True, False, True, True]
    assert (found.isnan() == found.isnan()[0]).all()


def test_a_mask_goes_where_its_picture_goes():

    masks = torch.randint(5, (6, 16, 16), generator=torch.Generator().manual_seed(0)).byte()
    images = masks[:, None].expand(-1, 3, -1, -1).contiguous()
    keys = [3, 1, 4, 1, 5, 9]
    moved = augment(images, ["flip", "shift", "brightness"], 7, keys, masks)
    plain = augment(images, ["flip", "shift"], 7, keys)
    assert torch.equal(moved.masks, plain.images[:, 0]) and not torch.equal(moved.images, plain.images)
    assert not torch.equal(plain.images, images)
    blocks = masks.repeat_interleave(8, 1).repeat_interleave(8, 2)  # the middle of a block is nobody's border
    zoomed = augment(50 * blocks[:, None].expand(-1, 3, -1, -1), ["zoom"], 7, keys, blocks)
    assert (zoomed.images[:, 0] == 50 * zoomed.masks).float().mean() > 0.6


# Contracts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["predictor", "segmenter"])
def test_a_predictor_is_the_same_function_after_a_file_and_for_any_batch(kind, tmp_path):
    semantic = (
        predictor() if kind == "predictor" else UNetSegmenter((3, 16, 16), ["a", "b"], channels=[8, 8]).eval()
    )
    semantic.log_temperature += 0.3
    semantic.save_pretrained(tmp_path)
    loaded = load_semantic_model(tmp_path)
    images = pixels.to_unit(random_images(5))
    of = (lambda j, x: j.predict(x)) if kind == "predictor" else (lambda j, x: j.probabilities(x))
    with torch.no_grad():
        if kind == "predictor":
            semantic.network.head.bias[-4:] = loaded.network.head.bias[-4:] = 9.0  # all is seen
        whole = of(semantic, images)
        assert torch.equal(of(loaded, images), whole)
        one_by_one = torch.cat([of(loaded, image[None]) for image in images])
    torch.testing.assert_close(one_by_one, whole, atol=1e-5, rtol=1e-4)
    assert isinstance(loaded, Predictor if kind == "predictor" else Segmenter)
    assert loaded.fingerprint() == semantic.fingerprint()


def test_a_predictor_is_no_generative_model_and_says_so(tmp_path):
    predictor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="holds a 'AttributePredictor'.*expected one of .*Glow"):
        load(tmp_path)


def test_mistakes_are_named(scenes):
    with pytest.raises(ValueError, match="nothing to learn"):
        AttributePredictor((3, 16, 16), [])
    with pytest.raises(ValueError, match="no class masks"):
        UNetSegmenter((3, 16, 16), [])
    with pytest.raises(UserError, match=r"channels: expected multiples of 8, got \[12\]"):
        UNetSegmenter((3, 16, 16), ["a"], channels=[12])
    with pytest.raises(UserError, match="images of 30×30 cannot be halved 2 times"):
        UNetSegmenter((3, 30, 30), ["a"])
    with pytest.raises(UserError, match="images of 4×4 cannot be halved 3 times"):
        AttributePredictor((3, 4, 4), [{"name": "a", "kind": "binary"}])
    with pytest.raises(UserError, match="attributes: expected entries"):
        AttributePredictor((3, 16, 16), [{"title": "a"}])
    semantic = predictor()
    with pytest.raises(ValueError, match="predictor's 4 attributes, got 1"):
        semantic.loss(semantic(random_images(2)), batch_of(random_images(2)))
    segmenter = UNetSegmenter((3, 16, 16), ["a"], channels=[8])
    with pytest.raises(ValueError, match="no class masks"):
        segmenter.loss(segmenter(random_images(2)), batch_of(random_images(2)))


# Other people's networks --------------------------------------------------------------------------


def test_torchvisions_networks_are_predictors_as_they_are():
    """Against torchvision's own preprocessing; random weights, there is nothing to download."""
    torch.manual_seed(0)
    network = torchvision.models.resnet18(num_classes=7).eval()
    semantic = ClassPredictor(network, [str(i) for i in range(7)], side=64)
    images = torch.rand(3, 3, 32, 32)
    prepare = torchvision.transforms.Compose([
        torchvision.transforms.Resize((64, 64), antialias=True),
        torchvision.transforms.Normalize(IMAGENET_MEAN, IMAGENET_DEVIATION),
    ])  # fmt: skip
    with torch.no_grad():
        expected = network(prepare(images)).softmax(1)
    torch.testing.assert_close(semantic.predict(images), expected, atol=1e-5, rtol=1e-4)
    assert isinstance(semantic, Predictor) and semantic.name == "ResNet"
    assert semantic.scores[2].name == "class: 2" and semantic.scores[2].attribute == "class"
    own = ClassPredictor(network, [str(i) for i in range(7)], side=64, exclusive=False)
    torch.testing.assert_close(own.predict(images), network(prepare(images)).detach().sigmoid())
    with pytest.raises(ValueError, match="expected a network with 2 classes, one per name, got 7"):
        ClassPredictor(network, ["a", "b"]).predict(images)


def test_segmenters_of_torchvision_and_of_transformers_kind():
    torch.manual_seed(0)
    network = torchvision.models.segmentation.lraspp_mobilenet_v3_large(
        weights=None, weights_backbone=None, num_classes=5
    ).eval()
    semantic = ClassSegmenter(network, list("abcde"), side=64)
    images = torch.rand(2, 1, 32, 32, requires_grad=True)
    probabilities = semantic.probabilities(images)
    assert isinstance(semantic, Segmenter) and probabilities.shape == (2, 5, 32, 32)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(2, 32, 32))
    assert torch.equal(semantic.segment(images).float().argmax(1), probabilities.argmax(1))
    (gradient,) = torch.autograd.grad(probabilities[:, 0].sum(), images)
    assert gradient.abs().sum() > 0

    def like_transformers(x):
        return SimpleNamespace(logits=network(x)["out"][:, :, ::4, ::4])

    small = ClassSegmenter(like_transformers, list("abcde"), side=64)
    assert small.probabilities(images).shape == (2, 5, 32, 32)
