"""A model that no tool has ever seen goes through all of them: `LatentModel` is all that they know.

It is an orthogonal map, so that what every tool should find is known: one half of a code draws the upper part
of the picture, the other the lower, and one channel of its one layer is where the picture is bright.
"""

from dataclasses import replace

import pytest
import torch

from flows import images as pixels
from flows.data.base import ArraySplit, Attribute, ImageData
from flows.dissection.agreement import best_by_class, dissect
from flows.dissection.artefacts import clean, without
from flows.dissection.causal import ablate, average_causal_effect, class_means, class_pixels
from flows.dissection.exemplars import exemplars_of_codes
from flows.dissection.intervention import insertion, learn_units
from flows.dissection.omission import energy_maps, omissions, shares_of
from flows.dissection.paint import paint
from flows.dissection.probe import instrument
from flows.dissection.unit_brush import find_units
from flows.errors import UserError
from flows.inversion.comparison import Group, compare
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact
from flows.inversion.hybrid import Hybrid
from flows.inversion.layer import Layer
from flows.inversion.optimise import Optimise
from flows.inversion.records import ImageSource
from flows.inversion.tune import Tune
from flows.models.base import LatentModel, LayerShape, Space
from flows.models.codes import Codes
from flows.models.priors import make_prior
from flows.semantics.base import Score
from flows.steering.base import Direction
from flows.steering.boundary import Boundary, condition
from flows.steering.displacement import Displacement
from flows.steering.evaluate import rescore, response
from flows.steering.factorise import Factorise, JacobianDirections
from flows.steering.levels import rank_levels
from flows.steering.mean_difference import MeanDifference
from flows.steering.method import Task
from flows.steering.pca import PrincipalComponents
from flows.steering.quality import faithfulness
from flows.steering.score_gradient import mean_gradients
from flows.steering.survey import score_codes, survey_images, survey_samples
from flows.steering.walk import Walk

SIDE = 8
HALF = SIDE * SIDE // 2


class Halves(LatentModel):
    """All that somebody writes to add a model: spaces and what they promise, encode, decode, and layers."""

    def __init__(self):
        super().__init__()
        self.image_shape, self.bins = (1, SIDE, SIDE), 256
        levels = {"upper": slice(0, HALF), "lower": slice(HALF, 2 * HALF)}
        maps = {"upper": (2, 4, 4), "lower": (2, 4, 4)}
        self.spaces = {
            "z": Space(
                "z", (2 * HALF,), make_prior("normal"), levels, "", maps, guarantee="exact", density=True
            )
        }
        self.description = {}
        random = torch.Generator().manual_seed(0)
        turns = [torch.linalg.qr(torch.randn(HALF, HALF, generator=random))[0] for _ in range(2)]
        self.turns = torch.nn.ParameterList([torch.nn.Parameter(turn) for turn in turns])
        self.layer = torch.nn.Identity()

    def encode(self, images, space="z", labels=None):
        x = (images.flatten(1) - 0.5) / 0.1
        return torch.cat([x[:, :HALF] @ self.turns[0].T, x[:, HALF:] @ self.turns[1].T], 1)

    def decode(self, code, space="z", labels=None):
        halves = code[:, :HALF] @ self.turns[0], code[:, HALF:] @ self.turns[1]
        image = 0.5 + 0.1 * torch.cat(halves, 1).view(-1, 1, SIDE, SIDE)
        h = self.layer(torch.cat([image, torch.zeros_like(image)], 1))
        return h[:, :1]

    def layers(self):
        return {"layer": LayerShape(2, (SIDE, SIDE))}


class Turned(Halves):
    """Two classes: the same, and upside down. With other labels every tool finds something else."""

    num_classes = 2

    def __init__(self):
        super().__init__()
        self.spaces = {"z": replace(self.spaces["z"], labelled=True)}

    def encode(self, images, space="z", labels=None):
        return super().encode(self.turn(images, labels))

    def decode(self, code, space="z", labels=None):
        return self.turn(super().decode(code), labels)

    def turn(self, images, labels):
        upside_down = self.check_labels(labels, len(images)) == 1
        return torch.where(upside_down[:, None, None, None], images.flip(2), images)


class Mean:
    """Brightness of each half of the image."""

    name = "mean"
    scores = tuple(Score(name, name, "attribute", False) for name in ("upper", "lower"))

    def predict(self, images):
        return images.flatten(2).unflatten(2, (2, HALF)).mean((1, 3))


class Bright:
    name, classes = "bright", ("dark", "bright")

    def probabilities(self, images):
        bright = torch.sigmoid(40 * (images[:, 0] - 0.6))
        return torch.stack([1 - bright, bright], 1)

    def segment(self, images):
        return self.probabilities(images) > 0.5


class Pictures(ImageData):
    """Samples of the model, which can be rendered again with a half made brighter."""

    name, can_rerender = "pictures", True
    attributes = (Attribute("upper", "real"), Attribute("lower", "real"))

    def __init__(self, model):
        self.image_shape = model.image_shape
        self.images = model.decode_bytes(model.sample(400, seed=7))

    def split(self, name):
        return ArraySplit(self.images, None, Mean().predict(pixels.to_unit(self.images, 256)))

    def rerender(self, name, attribute, values):
        unit = pixels.to_unit(self.images[: len(values)], 256)
        half = slice(0, SIDE // 2) if attribute == "upper" else slice(SIDE // 2, SIDE)
        column = 0 if attribute == "upper" else 1
        unit[:, :, half] += (values - Mean().predict(unit)[:, column])[:, None, None, None]
        return pixels.to_bytes(unit.clamp(0, 1))


@pytest.fixture(scope="module")
def model():
    return Halves().eval()


@pytest.fixture(scope="module")
def data(model):
    return Pictures(model)


def truth(model, half=0):
    """The direction that makes one half brighter: in the code, a half's rotation of the constant picture."""
    vector = torch.zeros(2 * HALF)
    turn = model.turns[half].detach()
    vector[half * HALF : (half + 1) * HALF] = turn.sum(1) / HALF**0.5
    return vector


def test_steering(model, data):
    tasks = {
        "boundary": (Boundary(share=0.3), Task(model, "z", ["upper", "lower"], Mean(), n=4000)),
        "from images": (Boundary(share=0.3), Task(model, "z", ["upper"], data=data, n=400)),
        "means": (MeanDifference(), Task(model, "z", ["upper"], Mean(), n=4000)),
    }
    found = {name: method.find(task) for name, (method, task) in tasks.items()}
    for name, least in (("boundary", 0.95), ("from images", 0.6), ("means", 0.95)):
        assert float(found[name][0].vector @ truth(model)) > least, name
    upper, lower = found["boundary"]
    codes = model.encode_bytes(data.images[:60])
    alone = condition(upper, [lower], tasks["boundary"][1].survey.codes)
    matrix = rescore(model, Mean(), [upper, alone], codes)
    assert matrix.own("upper") > 1.5 and matrix.leakage("upper", "lower") < 0.2
    assert response(model, Mean(), upper, codes, [-1.0, 0.0, 1.0])[:, 0].diff().min() > 0
    ranked = rank_levels(model, Mean(), [upper], codes)["upper"]
    assert ranked["upper"] > 10 * abs(ranked["lower"])
    assert faithfulness(model, Mean(), upper, codes, 5.0, data) > 0.9

    brighter = (truth(model, 0) + truth(model, 1)) / 2**0.5
    for method, task in (
        (Displacement(images=100), Task(model, "z", ["brightness"], data=data)),
        (Walk(steps=60, batch=8), Task(model, "z", ["brightness"])),
    ):
        (direction,) = method.find(task)
        assert float(direction.vector @ brighter) > 0.9, direction.method
    own = Task(model, "z", [])
    assert len(JacobianDirections(components=2, codes=2, iterations=2).find(own)) == 2
    assert len(PrincipalComponents(components=2, layer="layer", n=400).find(own)) == 2
    with pytest.raises(ValueError, match="has no styles"):
        Factorise().find(own)


def test_dissection(model, data):
    codes = model.sample(200, seed=0)
    found = dissect(model, Bright(), codes, ["layer", "code/upper"])
    best = best_by_class(found)["bright"]
    assert (best.layer, best.unit) == ("layer", 0) and best.iou > 0.8 and best.interpretable
    gone = ablate(model, Bright(), codes, "layer", "bright", [0], sizes=[1])
    assert gone.removed == [1]
    values = class_means(model, Bright(), codes, "layer", "bright")
    assert 0.6 < float(values[0]) < 0.8
    assert average_causal_effect(model, Bright(), codes, "layer", "bright", [0], values) == 1
    alpha = learn_units(model, Bright(), codes, "layer", "bright", values, steps=40)
    assert float(alpha[0]) > 0.8 > 0.3 > float(alpha[1])
    put = insertion(model, Bright(), codes[:10], "layer", "bright", [0], values)
    assert put.contexts["dark"][0] > 0.5

    dark = torch.full((120, 1, SIDE, SIDE), 100, dtype=torch.uint8)
    result = clean(
        model, Bright(), model.sample(200, seed=9), "layer", "bright", [0],
        without(dark, Bright(), "bright", model),
        lambda images: images.flatten(1).double() / 255, sizes=(0, 1),
    )  # fmt: skip
    assert result.images[1] == 0 and result.area[0] > 0.05 and len(result.distance) == 2
    generated = shares_of(Bright().segment(model.decode_codes(codes)))
    rows = omissions(
        shares_of(Bright().segment(pixels.to_unit(data.images, 256))), generated, Bright.classes
    ).rows
    assert all(abs(row.relative) < 0.2 for row in rows)

    maps = energy_maps(model, data.images[:5])
    codes = model.encode_bytes(data.images[:5])
    torch.testing.assert_close(maps.sum((1, 2)), codes.values.square().sum(1) / 2)

    brush = find_units(model, Bright(), "z", "bright", ["layer"], units=1, n=100)
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[2:4, 2:4] = True
    with instrument(model, "z") as probe:
        painted = paint(probe, codes[:1], data.images[0], [(brush, mask, "draw")], margin=0)
        again = paint(probe, codes[:1], data.images[0], [])
    assert torch.equal(painted.image[:, ~mask], data.images[0][:, ~mask]) and painted.outside < 1e-6
    assert Bright().segment(pixels.to_unit(painted.image[None], 256))[0, 1][mask].all()
    assert torch.equal(again.image, data.images[0])

    pictures = exemplars_of_codes(model, Bright(), model.sample(200, seed=0))
    with instrument(model, "z") as probe:
        brush = pictures.brush(model, "bright", ["layer"])
        painted = paint(probe, codes[:1], data.images[0], [(brush, mask, "draw")], margin=0)
    assert torch.equal(painted.image[:, ~mask], data.images[0][:, ~mask]) and painted.layers == {"layer": 2}
    assert Bright().segment(pixels.to_unit(painted.image[None], 256))[0, 1][mask].float().mean() > 0.5


def test_inversion(model, data):
    group = Group(data.images[:3], [ImageSource("", (SIDE, SIDE), (0, 0, SIDE, SIDE))] * 3)
    search = Optimise("z", steps=150, starts=2)
    inverters = {
        "exact": Exact(), "encoder": Encoder("z"), "optimise": search, "hybrid": Hybrid(steps=20),
        "layer": Layer(Optimise("z", steps=50), "layer", steps=50), "tune": Tune(search),
    }  # fmt: skip
    results = {each.row.inverter: each.row for each in compare({"halves": model}, inverters, {"own": group})}
    assert results["exact"].bit_exact == 1 and results["exact"].undone > 40
    assert results["optimise"].psnr > 30
    for name, row in results.items():
        assert row.note or row.psnr > 25, name
        assert not row.note.startswith("failed"), row.note


# Labels -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def turned():
    return Turned().eval()


def with_labels(codes, *labels):
    """The codes, with these labels in turn."""
    return replace(codes, labels=torch.tensor(labels).repeat(len(codes) // len(labels)))


def test_labels_go_with_codes_when_they_are_moved_and_scored(turned, tmp_path):
    """A direction that brightens the upper half of class 0 brightens the lower one of class 1."""
    codes = turned.sample(400, seed=3)
    assert codes.labels.tolist() == [0, 1] * 200
    upper = Direction(name="upper", vector=truth(turned), bias=0.0, space="z", sigma=1.0, method="by hand")
    step = 0.1 / HALF**0.5  # what α = 1 adds to each pixel of a half
    for labels, shares in (
        ((0,), [1, 0]),
        ((1,), [0, 1]),
        ((0, 1), [0.5, 0.5]),
        ((0, 0, 0, 1), [0.75, 0.25]),
    ):
        few, changes = with_labels(codes, *labels), step * torch.tensor(shares)
        found = rescore(turned, Mean(), [upper], few, alpha=1.0)
        deviations = score_codes(turned, Mean(), few).std(0, correction=0)
        torch.testing.assert_close(found.signed[0], changes / deviations, atol=1e-4, rtol=1e-3)
        slope = response(turned, Mean(), upper, few, [-1.0, 1.0]).diff(dim=0)[0] / 2
        torch.testing.assert_close(slope, changes, atol=1e-5, rtol=1e-3)
        gradient = mean_gradients(turned, Mean(), few, [0]).sums[0].float() / len(few)
        torch.testing.assert_close(gradient.view(2, HALF).norm(dim=1), changes, atol=1e-5, rtol=1e-3)

    class Printed(Mean):
        def fingerprint(self):
            return "0" * 16

    for _ in range(2):  # from the model, and from the file
        survey = survey_samples(turned, Printed(), 40, seed=3, cache=tmp_path)
        assert torch.equal(survey.codes.labels, codes.labels[:40])
        images = turned.decode(codes.values[:40], labels=codes.labels[:40]).clamp(0, 1)
        torch.testing.assert_close(survey.values, Mean().predict(images).detach())
    with pytest.raises(UserError, match="Turned is class-conditional: expected labels 0 … 1.*got none"):
        rescore(turned, Mean(), [upper], Codes(codes.values, "z"))


def test_labels_go_with_images_when_they_are_encoded(turned):
    codes = turned.sample(20, seed=5)
    images = turned.decode_bytes(codes)
    found = turned.encode_bytes(images, labels=codes.labels)
    assert torch.equal(found.labels, codes.labels) and torch.equal(turned.decode_bytes(found), images)
    survey = survey_images(turned, images, torch.zeros(20, 2), Mean.scores, labels=codes.labels)
    assert torch.equal(survey.codes.values, found.values) and torch.equal(survey.codes.labels, codes.labels)
    torch.testing.assert_close(
        energy_maps(turned, images, codes.labels).sum((1, 2)), found.values.square().sum(1) / 2
    )
    other = turned.encode_bytes(images, labels=1 - codes.labels)
    assert (other.values - found.values).norm(dim=1).min() > 1
    with pytest.raises(UserError, match="codes of 'z' need the class of each image"):
        turned.encode_bytes(images)


def test_labels_go_with_codes_when_units_are_dissected(turned, model):
    """The layer holds the picture before its rotation; results are the other model's with rotated masks."""
    codes = turned.sample(200, seed=0)
    plain = Codes(codes.values, "z")
    with torch.no_grad():
        seen = Bright().segment(model.decode_codes(plain))
    seen[1::2] = seen[1::2].flip(2)
    found = dissect(turned, Bright(), codes, ["layer", "code/upper"])
    expected = dissect(model, Bright(), plain, ["layer", "code/upper"], masks=seen[:, 1].byte())
    for layer in found:
        assert torch.equal(found[layer].iou, expected[layer].iou)
        assert torch.equal(found[layer].thresholds, expected[layer].thresholds)
    straight = dissect(turned, Bright(), with_labels(codes, 0), ["layer"])["layer"]
    assert float(straight.iou[0, 1]) > 0.8 > 0.6 > float(found["layer"].iou[0, 1])
    torch.testing.assert_close(class_pixels(turned, Bright(), codes), seen.flatten(2).sum(2))
    mask = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    mask[:2] = True
    brush = exemplars_of_codes(turned, Bright(), codes).brush(turned, "bright", ["code/upper"])
    fresh = turned.sample(2, seed=1)
    with instrument(turned, "z") as probe:
        for i, changes in ((0, True), (1, False)):  # of what is upside down the brush is on the lower part
            original = turned.decode_bytes(fresh[i : i + 1])[0]
            painted = paint(probe, fresh[i : i + 1], original, [(brush, mask, "draw")] * 2, margin=0)
            assert bool(painted.changed.any()) == changes
    with pytest.raises(UserError, match="got none"):
        dissect(turned, Bright(), plain, ["layer"])
