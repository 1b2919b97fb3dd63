"""Directions against truth that is planted: a plane with its bias, factors that do not move one another."""

import dataclasses
import itertools
import json
import math
from functools import partialmethod

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from flows.data.base import ArraySplit, Attribute, ImageData
from flows.errors import CheckpointError, UserError
from flows.metrics.typicality import limit_typicality, typicality
from flows.models.base import LatentModel, LayerShape, Space
from flows.models.codes import Codes
from flows.models.priors import make_prior
from flows.models.stylegan import StyleGAN
from flows.semantics.base import Score
from flows.steering.base import Direction, load_directions, place, save_directions, shift
from flows.steering.boundary import Boundary, condition
from flows.steering.disentangle import disentangle
from flows.steering.displacement import Displacement, linearity
from flows.steering.evaluate import kept_share, rescore, response
from flows.steering.factorise import Factorise, JacobianDirections
from flows.steering.levels import rank_levels, to_levels
from flows.steering.mean_difference import MeanDifference, RunningMoments
from flows.steering.method import Task
from flows.steering.operators import OPERATORS
from flows.steering.pca import PrincipalComponents
from flows.steering.quality import distances_by_alpha, faithfulness, reach_of
from flows.steering.ranking import read_scores, worse_in_z
from flows.steering.score_gradient import ScoreGradient, mean_gradients
from flows.steering.survey import Survey, score_codes, survey_images, survey_samples
from flows.steering.validation import best_cut
from flows.steering.walk import Walk

D, PLACES = 12, 4


class Toy(LatentModel):
    """A linear decoder: every 'factor' is a direction of z and lights one quarter of the image."""

    def __init__(self, seed: int = 0):
        super().__init__()
        self.image_shape, self.bins = (1, 8, 8), 256
        levels = {"coarse": slice(0, 6), "fine": slice(6, D)}
        self.spaces = {
            "z": Space("z", (D,), make_prior("normal"), levels, "planted", guarantee="exact", density=True)
        }
        self.description = {}
        basis, _ = torch.linalg.qr(torch.randn(D, D, generator=torch.Generator().manual_seed(seed)))
        self.basis = torch.nn.Parameter(basis)

    def quarters(self, code):
        return 0.5 + 0.1 * code @ self.basis[:, :PLACES]

    def encode(self, images, space="z", labels=None):
        quarters = torch.stack([images[:, 0, i * 2].mean(1) for i in range(PLACES)], 1)
        return (quarters - 0.5) / 0.1 @ self.basis[:, :PLACES].T

    def decode(self, code, space="z", labels=None):
        return self.quarters(code).repeat_interleave(2, 1)[:, None, :, None].expand(-1, -1, -1, 8)

    def layers(self):
        return {"decode": LayerShape(1, (8, 8))}


class Rows:
    """The brightness of every quarter, exactly."""

    name = "rows"
    scores = tuple(Score(f"quarter {i}", f"quarter {i}", "attribute", False) for i in range(PLACES))

    def predict(self, images):
        return torch.stack([images[:, 0, i * 2].mean(1) for i in range(PLACES)], 1)


@pytest.fixture(scope="module")
def toy():
    return Toy().eval()


@pytest.fixture(scope="module")
def survey(toy):
    return survey_samples(toy, Rows(), 4000, seed=1)


def planted(n=3000, offset=0.7, noise=0.0):
    """Codes of a space whose plane does not pass through the origin, with labels by their side of it."""
    random = torch.Generator().manual_seed(3)
    normal = torch.randn(D, generator=random)
    normal = normal / normal.norm()
    codes = 2 * torch.randn(n, D, generator=random) + 1.5
    distance = codes @ normal - offset
    values = (distance + noise * torch.randn(n, generator=random))[:, None]
    score = Score("it", "it", "attribute", False, -5.0, 5.0)
    return normal, Survey(Codes(codes, "z"), values, (score,))


# Finding ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 0.7, -2.0])
def test_a_boundary_is_the_planted_plane_with_its_bias(offset):
    normal, survey = planted(offset=offset)
    found = Boundary(share=0.3).one(survey, "it")
    assert float(found.vector @ normal) > 0.99
    middle = (survey.values.min() + survey.values.max()) / 2
    # At the codes where the score is in the middle of its extremes, the distance is next to nothing.
    near = (survey.values[:, 0] - middle).abs() < 0.1
    assert found.distance(survey.codes[near].values).abs().max() < 0.5
    assert float(found.distance(survey.codes[near].values).mean()) == pytest.approx(0, abs=0.1)
    assert found.evidence["validation_accuracy"] > 0.99 and found.evidence["accuracy"] > 0.95
    assert found.sigma == pytest.approx(2.0, rel=0.05)


def test_a_boundary_of_noise_is_no_better_than_chance():
    _, survey = planted()
    noise = torch.randn(len(survey), 1, generator=torch.Generator().manual_seed(0))
    found = Boundary(share=0.3).one(Survey(survey.codes, noise, survey.scores), "it")
    assert found.evidence["balanced_accuracy"] < 0.56


def test_boundaries_refuse_what_they_cannot_separate():
    _, survey = planted(n=60)
    with pytest.raises(ValueError, match="expected at least 10 each"):
        Boundary(share=0.02).one(survey, "it")
    same = Survey(survey.codes, torch.ones(60, 1), survey.scores)
    with pytest.raises(ValueError, match="0 of .* codes have a low score and 0 a high score"):
        Boundary(share=0.5).one(same, "it")
    with pytest.raises(ValueError, match="there is no score 'other'; expected one of it"):
        Boundary().one(survey, "other")


def test_mean_difference_of_a_plane_is_its_normal():
    normal, survey = planted(n=20_000)
    found = MeanDifference(batch=777).one(survey, "it")
    assert float(found.vector @ normal) > 0.99
    assert found.evidence["length"] > 20 * found.evidence["length_by_chance"]
    whole = MeanDifference(batch=20_000).one(survey, "it")
    torch.testing.assert_close(whole.vector, found.vector, atol=1e-6, rtol=0)


def test_running_moments_are_numpys():
    values = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 7 + 100
    moments = RunningMoments(3)
    for part in values.split([1, 0, 199, 300]):
        moments.add(part)
    np.testing.assert_allclose(moments.mean, values.double().numpy().mean(0), rtol=1e-12)
    np.testing.assert_allclose(moments.variance, values.double().numpy().var(0, ddof=1), rtol=1e-10)


def test_the_best_cut_is_that_of_trying_all():
    random = torch.Generator().manual_seed(0)
    for _ in range(20):
        along = torch.randn(15, generator=random, dtype=torch.double)
        above = torch.rand(15, generator=random) < 0.5
        cut = best_cut(along, above)
        right = [int(((along > t) == above).sum()) for t in [*along.tolist(), -9.0]]
        assert int(((along > cut) == above).sum()) == max(right)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_conditioning_leaves_the_others_alone(survey, count):
    random = torch.Generator().manual_seed(count)
    vectors = torch.nn.functional.normalize(torch.randn(count + 1, D, generator=random), dim=1)
    first, *others = [
        Direction(name=str(i), vector=v, bias=0.1, space="z", sigma=1.0, method="by hand")
        for i, v in enumerate(vectors)
    ]
    found = condition(first, others, survey.codes)
    assert found.vector.norm() == pytest.approx(1, abs=1e-6)
    for each in others:
        assert abs(float(found.vector @ each.vector)) < 1e-6
    # The projection onto the complement by least squares, another way to the same vector.
    matrix = torch.stack([each.vector for each in others], 1).double().numpy()
    target = first.vector.double().numpy()
    residual = target - matrix @ np.linalg.lstsq(matrix, target, rcond=None)[0]
    np.testing.assert_allclose(found.vector, residual / np.linalg.norm(residual), atol=1e-6)
    with pytest.raises(ValueError, match="nothing is left without"):
        condition(first, [first], survey.codes)


def test_the_gradient_of_a_score_is_that_of_the_drawn_picture(toy):
    """The gradient of a linear decoder is the same everywhere, and known: ∂(0.5 + 0.1 z·b)/∂z."""
    task = Task(toy, "z", ["quarter 2", "quarter 0"], Rows(), None, 300)
    for found, i in zip(ScoreGradient(codes=120).find(task), (2, 0), strict=True):
        torch.testing.assert_close(found.vector, toy.basis[:, i].detach(), atol=1e-5, rtol=0)
        assert found.evidence["length"] == pytest.approx(0.1, abs=1e-6) and found.evidence["codes"] == 120
        assert found.evidence["alike"] == pytest.approx(1, abs=1e-5)

    class Dark(Rows):
        """Says nothing of bright quarters."""

        def predict(self, images):
            rows = super().predict(images)
            return rows.masked_fill(rows > 0.5, torch.nan)

    codes = toy.sample(130, seed=0)
    found = mean_gradients(toy, Dark(), codes, [1])
    dark = toy.quarters(codes.values)[:, 1] <= 0.5
    assert torch.equal(~found.values[:, 0].isnan(), dark)
    torch.testing.assert_close(
        found.sums[0], int(dark.sum()) * 0.1 * toy.basis[:, 1].detach().double(), atol=1e-5, rtol=0
    )

    class Cut(Rows):
        def predict(self, images):
            return super().predict(images).detach()

    with pytest.raises(ValueError, match="has no gradient"):
        mean_gradients(toy, Cut(), codes, [1])


def test_disentangling_finds_the_direction_that_changes_nothing_else(toy):
    """Planted: one quarter with four fifths of the next, as a scorer sees it that is not linear."""

    class Bent(Rows):
        def predict(self, images):
            return torch.tanh(8 * (super().predict(images) - 0.5))

    mixed = torch.nn.functional.normalize(toy.basis[:, 0] + 0.8 * toy.basis[:, 1], dim=0).detach()
    direction = Direction(name="quarter 0", vector=mixed, bias=0.0, space="z", sigma=1.0, method="by hand")
    codes = toy.sample(300, seed=5)
    found = disentangle(toy, Bent(), direction, codes, enough=0.01)
    assert found.leakages[0] > 0.7 and min(found.leakages) <= 0.01 and found.projected_out == ["quarter 1"]
    basis = toy.basis.detach()
    assert float(found.direction.vector @ basis[:, 0]) > 0.999 and found.direction.name == "quarter 0"
    fresh = toy.sample(300, seed=6)
    matrix = rescore(toy, Bent(), [found.direction], fresh)
    assert matrix.leakage("quarter 0", "quarter 1") < 0.05
    pure = Direction(
        name="quarter 0", vector=toy.basis[:, 0].detach(), bias=0.0, space="z", sigma=1.0, method="by hand"
    )
    same = disentangle(toy, Bent(), pure, codes)
    assert same.best == 0 and torch.equal(same.direction.vector, pure.vector)
    assert same.direction.method == "by hand" and not same.projected_out


# Moving -------------------------------------------------------------------------------------------


def test_shift_is_relative_and_place_absolute(toy):
    space = toy.spaces["z"]
    vector = torch.nn.functional.normalize(torch.arange(1.0, D + 1), dim=0)
    direction = Direction(name="it", vector=vector, bias=-0.4, space="z", sigma=2.0, method="by hand")
    codes = Codes(torch.randn(5, D, generator=torch.Generator().manual_seed(0)), "z")
    alpha = torch.linspace(-2, 2, 5)
    moved = direction.distance(shift(codes, direction, alpha).values)
    torch.testing.assert_close(moved - direction.distance(codes.values), 2.0 * alpha)
    for levels in [(), ("fine",), ("coarse", "fine")]:
        part = direction.on_levels(levels, space)
        placed = place(codes, part, alpha).values
        torch.testing.assert_close(part.distance(placed), 2.0 * alpha, atol=1e-5, rtol=1e-5)
        if levels == ("fine",):
            assert torch.equal(placed[:, :6], codes.values[:, :6])
            assert torch.equal(shift(codes, part, 1.0).values[:, :6], codes.values[:, :6])
    with pytest.raises(ValueError, match="no level .other.; it has coarse, fine"):
        direction.on_levels(["other"], space)


def test_levels_without_their_slices_are_refused():
    """The step would be zero: `shift` would do nothing, and `place` give NaN."""
    step = Direction(
        name="it", vector=torch.ones(D) / D**0.5, bias=0.0, space="z", sigma=1.0, method="by hand"
    )
    for wrong in ({"levels": ("fine",)}, {"slices": (slice(0, 2),)}):
        with pytest.raises(UserError, match="^it: expected one slice of the code per level.*`on_levels`"):
            dataclasses.replace(step, **wrong)


def test_restricted_directions_survive_a_file(toy, survey, tmp_path):
    step = Boundary().one(survey, "quarter 0").on_levels(list(toy.spaces["z"].levels)[:1], toy.spaces["z"])
    save_directions(tmp_path / "d.safetensors", [step])
    (loaded,) = load_directions(tmp_path / "d.safetensors", toy)
    assert loaded.levels == step.levels and loaded.slices == step.slices and len(loaded.slices) == 1


def test_codes_of_another_space_are_not_moved():
    direction = Direction(
        name="it", vector=torch.ones(D) / D**0.5, bias=0.0, space="w", sigma=1.0, method="by hand"
    )
    codes = Codes(torch.zeros(2, D), "z")
    for move in (shift, place):
        with pytest.raises(UserError, match="^it: expected codes of space 'w', got 'z'$"):
            move(codes, direction, 1.0)


def test_a_budget_cuts_a_step_where_the_sphere_is_left(toy):
    """Against the intersection of a line and a sphere, in closed form."""
    code = torch.zeros(3, D)
    code[0, 0], code[1, 0], code[2, 0] = 3.2, 3.3, 6.0
    step = torch.zeros(3, D)
    step[:, 1] = 5.0

    def share_of(code, step, budget):
        end = limit_typicality(toy, Codes(code, "z"), Codes(code + step, "z"), budget)
        return (end.values - code)[:, 1] / step[:, 1]

    share = share_of(code, step, budget=0.1)
    radius = 1.1 * math.sqrt(D)
    for i in (0, 1):
        assert float(share[i]) == pytest.approx(math.sqrt(radius**2 - float(code[i, 0]) ** 2) / 5, abs=1e-4)
    assert float(share[2]) < 1e-2  # outside already, and every step leads farther
    assert share_of(code[:1], 0.1 * step[:1], budget=0.5) == 1
    found = typicality(toy, Codes(code, "z"))
    torch.testing.assert_close(found, code[:, 0] / math.sqrt(D) - 1)


def test_directions_survive_a_file_and_no_other_model(toy, survey, tmp_path):
    directions = [Boundary().one(survey, name) for name in ("quarter 0", "quarter 1")]
    save_directions(tmp_path / "d.safetensors", directions)
    loaded = load_directions(tmp_path / "d.safetensors", toy)
    for before, after in zip(directions, loaded, strict=True):
        assert torch.equal(before.vector, after.vector)
        assert {**vars(before), "vector": 0} == {**vars(after), "vector": 0}
    other = Toy(seed=5)
    with pytest.raises(CheckpointError, match=f"{toy.fingerprint()}.*{other.fingerprint()}"):
        load_directions(tmp_path / "d.safetensors", other)
    content = (tmp_path / "d.safetensors").read_bytes()
    (tmp_path / "d.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="cut off"):
        load_directions(tmp_path / "d.safetensors", toy)


# Scoring ------------------------------------------------------------------------------------------


def test_rescoring_finds_the_planted_factor_and_no_other(toy, survey):
    names = [score.name for score in Rows.scores]
    directions = [Boundary(share=0.3).one(survey, name) for name in names]
    for i, each in enumerate(directions):
        assert float(each.vector @ toy.basis[:, i].detach()) > 0.99
    codes = toy.sample(300, seed=9)
    found = rescore(toy, Rows(), directions, codes, alpha=1.0)
    # A step of one sigma along a factor changes its score by one std, and the others by none.
    torch.testing.assert_close(found.signed, torch.eye(PLACES), atol=0.15, rtol=0)
    for name, other in itertools.permutations(names, 2):
        assert found.leakage(name, other) < 0.15
    assert (found.low <= found.signed + 1e-6).all() and (found.signed <= found.high + 1e-6).all()
    nothing = rescore(toy, Rows(), directions, codes, alpha=0.0)
    assert nothing.signed.abs().max() == 0 and nothing.clipped.abs().max() == 0


def test_entangled_directions_leak_until_they_are_conditioned(toy, survey):
    mixed = torch.nn.functional.normalize(toy.basis[:, 0] + 0.8 * toy.basis[:, 1], dim=0).detach()
    first = Direction(name="quarter 0", vector=mixed, bias=0.0, space="z", sigma=1.0, method="by hand")
    second = Direction(
        name="quarter 1", vector=toy.basis[:, 1].detach(), bias=0.0, space="z", sigma=1.0, method="by hand"
    )
    codes = toy.sample(200, seed=9)
    before = rescore(toy, Rows(), [first], codes)
    after = rescore(toy, Rows(), [condition(first, [second], survey.codes)], codes)
    assert before.leakage("quarter 0", "quarter 1") == pytest.approx(0.8, abs=0.15)
    assert after.leakage("quarter 0 without quarter 1", "quarter 1") < 1e-3


def test_the_interval_is_that_of_the_mean(toy):
    """The bootstrap's interval of a noisy score is about ± 1.96 standard errors."""

    class Noisy(Rows):
        def predict(self, images):
            seed = int(images.sum() * 1000) % 2**31
            return super().predict(images) + torch.randn(
                len(images), PLACES, generator=torch.Generator().manual_seed(seed)
            )

    codes = toy.sample(400, seed=2)
    step = Direction(
        name="quarter 0", vector=toy.basis[:, 0].detach(), bias=0.0, space="z", sigma=1.0, method="by hand"
    )
    found = rescore(toy, Noisy(), [step], codes, alpha=0.5, resamples=2000)
    half = (found.high - found.low)[0] / 2
    expected = 1.96 * math.sqrt(2) / 2 / math.sqrt(400)
    torch.testing.assert_close(half, torch.full((PLACES,), expected), rtol=0.15, atol=0)


def test_what_is_not_seen_is_in_no_mean(toy):
    """A score that says nothing of half of the images: its mean is that over the others."""

    class Half(Rows):
        def predict(self, images):
            values = super().predict(images)
            values[:, 1] = values[:, 1].where(values[:, 3] > 0.5, torch.nan)
            return values

    codes = toy.sample(400, seed=2)
    step = Direction(
        name="quarter 1", vector=toy.basis[:, 1].detach(), bias=0.0, space="z", sigma=1.0, method="by hand"
    )
    whole, half = (rescore(toy, semantic, [step], codes, alpha=1.0) for semantic in (Rows(), Half()))
    seen = Rows().predict(toy.decode_codes(codes).detach())[:, 3] > 0.5
    std = Rows().predict(toy.decode_codes(codes[seen]).detach())[:, 1].std(correction=0)
    assert float(half.signed[0, 1]) == pytest.approx(0.1 / float(std), rel=1e-3)
    assert torch.allclose(half.signed[0, [0, 2, 3]], whole.signed[0, [0, 2, 3]], atol=1e-5)
    assert half.signed.isfinite().all() and half.low.isfinite().all()


def test_results_depend_on_no_batch_size(toy, survey, monkeypatch):
    codes = survey.codes[:250]
    whole = score_codes(toy, Rows(), codes)
    monkeypatch.setattr(LatentModel, "map_images", partialmethod(LatentModel.map_images, batch=7))
    torch.testing.assert_close(score_codes(toy, Rows(), codes), whole, atol=1e-6, rtol=0)
    again = survey_samples(toy, Rows(), 250, seed=1)
    assert torch.equal(again.codes.values, codes.values)
    torch.testing.assert_close(again.values, survey.values[:250], atol=1e-6, rtol=0)


def test_a_response_is_linear_where_the_decoder_is(toy):
    step = Direction(
        name="quarter 2", vector=toy.basis[:, 2].detach(), bias=0.0, space="z", sigma=1.0, method="by hand"
    )
    codes = toy.sample(100, seed=2)
    alphas = [-2.0, -1.0, 0.0, 1.0, 2.0]
    found = response(toy, Rows(), step, codes, alphas)
    torch.testing.assert_close(found[:, 2] - found[2, 2], 0.1 * torch.tensor(alphas), atol=1e-4, rtol=0)
    absolute = response(toy, Rows(), step, codes, alphas, absolute=True)
    torch.testing.assert_close(absolute[:, 2], 0.5 + 0.1 * torch.tensor(alphas), atol=1e-4, rtol=0)


def test_a_survey_of_images_has_their_codes_and_the_truth(toy):
    images = (255 * torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(0))).byte()
    truth = torch.rand(30, PLACES)
    found = survey_images(toy, images, truth, Rows.scores)
    with torch.no_grad():
        expected = toy.encode((images.float() + 0.5) / 256)
    torch.testing.assert_close(found.codes.values, expected)
    assert torch.equal(found.column("quarter 3"), truth[:, 3])


def test_a_survey_is_looked_up_by_all_that_it_depends_on(toy, tmp_path, monkeypatch):
    class Printed(Rows):
        def fingerprint(self):
            return "0" * 16

    first = survey_samples(toy, Printed(), 20, seed=1, cache=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    monkeypatch.setattr("flows.steering.survey.score_codes", None)
    again = survey_samples(toy, Printed(), 20, seed=1, cache=tmp_path)
    assert torch.equal(first.values, again.values) and torch.equal(first.codes.values, again.codes.values)
    for other in ({"seed": 2}, {"n": 21}, {"temperature": 0.5}):
        with pytest.raises(TypeError, match="not callable"):
            survey_samples(toy, Printed(), **{"n": 20, "seed": 1, **other}, cache=tmp_path)


# Edits --------------------------------------------------------------------------------------------


def pictures(n=6, side=16):
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", OPERATORS)
def test_an_edit_of_no_strength_changes_nothing(name):
    operator, images = OPERATORS[name], pictures()
    moved, known = operator(images, torch.full((6,), operator.still))
    torch.testing.assert_close(moved, images, atol=1e-5, rtol=0)
    assert known.min() == 1 and known.shape == (6, 1, 16, 16)
    assert operator.amount(torch.tensor([operator.still])) == 0


def test_shifts_and_rotations_are_torchvisions():
    images = pictures()
    ones = torch.ones(6)
    moved, known = OPERATORS["shift x"](images, 0.25 * ones)
    assert torch.equal(known[0, 0].sum(0), torch.tensor([0.0] * 4 + [16.0] * 12))
    torch.testing.assert_close(moved[..., 4:], images[..., :-4], atol=1e-5, rtol=0)
    moved, known = OPERATORS["shift y"](images, -0.125 * ones)
    torch.testing.assert_close(moved[:, :, :-2], images[:, :, 2:], atol=1e-5, rtol=0)
    assert known[0, 0].sum() == 14 * 16
    for angle in (90.0, -90.0, 17.0):
        moved, known = OPERATORS["rotate 2d"](images, angle * ones)
        expected = rotate(images, angle, InterpolationMode.BILINEAR)
        inside = rotate(torch.ones_like(images), angle, InterpolationMode.BILINEAR)[:, :1] > 0.999
        both = (inside & (known > 0)).expand_as(images)
        torch.testing.assert_close(moved[both], expected[both], atol=1e-4, rtol=0)
        assert abs(float(known.mean() - inside.double().mean())) < 0.15


def test_zoom_is_a_resampling_and_its_amount_a_logarithm():
    operator, images = OPERATORS["zoom"], pictures(2)
    smooth = torch.nn.functional.interpolate(images[..., :4, :4], size=16, mode="bicubic").clamp(0, 1)
    nearer, known = operator(smooth, torch.full((2,), 2.0))
    assert known.min() == 1
    expected = torch.nn.functional.interpolate(smooth, scale_factor=2, mode="bilinear")[..., 8:24, 8:24]
    torch.testing.assert_close(nearer, expected, atol=1e-5, rtol=0)
    farther, known = operator(smooth, torch.full((2,), 0.5))
    assert known[0, 0].sum() == 8 * 8 and known[0, 0, 4:12, 4:12].min() == 1
    torch.testing.assert_close(
        operator.amount(torch.tensor([0.5, 1.0, 2.0, 4.0])), torch.tensor([-1.0, 0, 1, 2])
    )
    sampled = operator.sample(2000, torch.Generator().manual_seed(0))
    assert 0.47 < float((sampled < 1).double().mean()) < 0.53
    assert 0.5 <= sampled.min() and sampled.max() <= 2


def test_a_turned_plane_keeps_straight_lines_and_looks_shorter_at_one_end():
    column = torch.zeros(1, 3, 16, 16)
    column[..., 3] = column[..., 12] = 1
    moved, _ = OPERATORS["rotate 3d"](column, torch.tensor([30.0]))
    heights = (moved[0, 0] > 0.3).sum(0)
    assert heights[heights > 0].min() == 16  # upright lines stay upright
    back, known = OPERATORS["rotate 3d"](moved, torch.tensor([0.0]))
    assert known.min() == 1 and torch.equal(back, moved)


# Methods ------------------------------------------------------------------------------------------


class Images(ImageData):
    name = "planted"

    def __init__(self, images):
        self.images, self.image_shape = images, tuple(images.shape[1:])

    def split(self, name):
        return ArraySplit(self.images)


def task(model, names=(), space="z", data=None):
    return Task(model, space, list(names), Rows() if isinstance(model, Toy) else None, data)


def test_a_walk_recovers_the_linear_decoder(toy):
    """Brightness of all quarters: the planted walk is the sum of their directions."""
    found = Walk(steps=300, batch=32, lr=0.05).find(task(toy, ["brightness"]))[0]
    truth = toy.basis[:, :PLACES].detach().sum(1)
    seen = toy.basis[:, :PLACES].detach().T @ (found.vector * found.sigma)
    torch.testing.assert_close(seen, torch.full((PLACES,), 4.0), atol=0.3, rtol=0)
    assert float(found.vector @ (truth / truth.norm())) > 0.98
    assert found.evidence["explained"] > 0.98


def test_displacements_of_a_linear_decoder_are_straight(toy):
    images = toy.decode_bytes(toy.sample(60, seed=0))
    directions = Displacement(images=60).find(task(toy, ["brightness"], data=Images(images)))
    truth = toy.basis[:, :PLACES].detach().sum(1)
    assert float(directions[0].vector @ (truth / truth.norm())) > 0.999
    evidence = directions[0].evidence
    assert evidence["r2"] > 0.98
    assert evidence["share coarse"] + evidence["share fine"] == pytest.approx(1)


def test_displacements_of_rendered_factors_are_their_directions(toy):
    """The toy's quarter i is 0.5 + 0.1 z·bᵢ: drawn 1 brighter, the code moves along bᵢ by 10."""
    data = Quarters(toy)
    found = Displacement(images=60, strengths=3).find(task(toy, ["quarter 2"], data=data))[0]
    assert float(found.vector @ toy.basis[:, 2].detach()) > 0.999
    along = data.codes.values @ toy.basis[:, 2].detach()
    assert found.sigma == pytest.approx(float(along.std()), rel=0.01)
    assert found.bias == pytest.approx(-float(along.median()), abs=0.05)
    assert found.evidence["step of 1, sigmas"] * found.sigma == pytest.approx(10, rel=0.01)
    # All but those that came out the same byte by chance.
    assert 175 < found.evidence["images"] <= 180 and found.evidence["r2"] > 0.99
    # What cannot be seen teaches nothing: half of the images, whatever they would show.
    half = Quarters(toy, unseen=30)
    assert 85 < Displacement(60, 3).find(task(toy, ["quarter 2"], data=half))[0].evidence["images"] <= 90
    with pytest.raises(ValueError, match="it changes 5 of 60 images, expected at least 10"):
        Displacement(60).find(task(toy, ["quarter 2"], data=Quarters(toy, unseen=55)))
    with pytest.raises(ValueError, match=r"no edit 'hue'; expected some of zoom, .*quarter 0"):
        Displacement(60).find(task(toy, ["hue"], data=data))


def test_linearity_is_one_for_lines_and_zero_for_noise():
    random = torch.Generator().manual_seed(0)
    amounts = torch.rand(2000, generator=random).double() * 2 - 1
    line = torch.randn(D, generator=random).double()
    space = Space("z", (D,), None, {"coarse": slice(0, 6), "fine": slice(6, D)}, "")
    straight = linearity(amounts[:, None] * line, amounts, line, space)
    assert straight["r2"] == pytest.approx(1) and straight["r2 fine"] == pytest.approx(1)
    noise = torch.randn(2000, D, generator=random).double()
    slope = amounts @ noise / amounts.square().sum()
    assert linearity(noise, amounts, slope, space)["r2"] < 0.01


def test_jacobian_directions_are_its_singular_vectors():
    """Against the singular value decomposition of autograd's Jacobian, at one code and over several."""
    torch.manual_seed(0)
    model = StyleGAN((3, 8, 8), size=10, channels=[8, 8], critic_channels=[8, 8]).eval()
    for codes in (1, 3):
        given = task(model, space="w")
        sampled = model.sample(codes, "w", seed=0).values
        total = torch.zeros(10, 10, dtype=torch.double)
        for code in sampled:
            jacobian = torch.autograd.functional.jacobian(lambda w: model.decode(w[None], "w")[0], code)
            jacobian = jacobian.flatten(0, 2).double()
            total += jacobian.T @ jacobian / codes
        values, vectors = torch.linalg.eigh(total)
        found = JacobianDirections(components=3, codes=codes, iterations=30).find(given)
        for i, each in enumerate(found):
            assert abs(float(each.vector.double() @ vectors[:, -1 - i])) > 0.999
            assert each.evidence["share"] == pytest.approx(float(values[-1 - i] / values.sum()), rel=0.35)


def test_factorise_is_numpys_decomposition_of_the_style_weights():
    torch.manual_seed(0)
    model = StyleGAN((3, 8, 8), size=10, channels=[8, 8], critic_channels=[8, 8]).eval()
    weights = model.style_weights()
    found = Factorise(components=4).find(task(model, space="w"))
    rows = np.concatenate([w.detach().double().numpy() for w in weights.values()])
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, singular, right = np.linalg.svd(rows)
    for i, each in enumerate(found):
        assert abs(float(each.vector.double().numpy() @ right[i])) > 0.9999
        assert each.evidence["share"] == pytest.approx(singular[i] ** 2 / (singular**2).sum())
    # The weights are those by which a layer's style really changes.
    layer = model.generator.synthesis.layers[1].convolution.style
    w = torch.randn(2, 10)
    torch.testing.assert_close(layer(w[:1]) - layer(w[1:]), (w[:1] - w[1:]) @ weights["layer1"].T)
    with pytest.raises(ValueError, match="has no styles"):
        Factorise().find(task(Toy().eval()))


def test_principal_components_are_numpys_and_need_a_layer_where_codes_are_white():
    torch.manual_seed(0)
    model = StyleGAN((3, 8, 8), size=10, channels=[8, 8], critic_channels=[8, 8]).eval()
    found = PrincipalComponents(components=3, n=600, batch=100).find(task(model, space="w"))
    codes = model.sample(600, "w", seed=0).values.double().numpy()
    values, vectors = np.linalg.eigh(np.cov(codes.T))
    for i, each in enumerate(found):
        assert abs(float(each.vector.double().numpy() @ vectors[:, -1 - i])) > 0.999
        assert each.sigma == pytest.approx(math.sqrt(values[-1 - i]), rel=0.01)
    with pytest.raises(ValueError, match="white.*name a layer"):
        PrincipalComponents().find(task(model))
    layer = next(iter(model.layers()))
    through = PrincipalComponents(components=3, layer=layer, n=300, batch=100).find(task(model))
    assert all(abs(float(each.vector.norm()) - 1) < 1e-5 for each in through)


def test_levels_are_ranked_by_what_they_change(toy):
    """A direction that lies in the coarse half alone changes nothing through the fine one."""
    vector = torch.zeros(D)
    vector[:6] = torch.nn.functional.normalize(toy.basis[:6, 0].detach(), dim=0)
    step = Direction(name="quarter 0", vector=vector, bias=0.0, space="z", sigma=1.0, method="by hand")
    codes = toy.sample(50, seed=2)
    found = rank_levels(toy, Rows(), [step], codes)["quarter 0"]
    assert found["coarse"] > 0.5 and found["fine"] == 0


def test_a_direction_of_w_moves_all_layers_of_w_plus():
    torch.manual_seed(0)
    model = StyleGAN((3, 8, 8), size=10, channels=[8, 8], critic_channels=[8, 8]).eval()
    vector = torch.nn.functional.normalize(torch.randn(10), dim=0)
    step = Direction(name="it", vector=vector, bias=0.3, space="w", sigma=2.0, method="by hand")
    wide = to_levels(model, step, "w+")
    w = model.sample(3, "w", seed=1)
    codes = model.convert_codes(w, "w+")
    narrow = model.convert_codes(shift(w, step, 1.5), "w+").values
    broad = shift(codes, wide, 1.5).values
    torch.testing.assert_close(narrow, broad, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(wide.distance(codes.values) / wide.sigma, step.distance(w.values) / step.sigma)
    crooked = Direction(name="it", vector=vector, bias=0.0, space="z", sigma=2.0, method="by hand")
    with pytest.raises(ValueError, match=r"whose map to w\+ is not linear"):
        to_levels(model, crooked, "w+")


# What moves cost ----------------------------------------------------------------------------------


class Quarters(ImageData):
    """Images that the toy decodes, which can be rendered again with one quarter set."""

    name, can_rerender = "quarters", True

    def __init__(self, toy, unseen=0):
        self.toy, self.image_shape, self.unseen = toy, toy.image_shape, unseen
        self.attributes = tuple(Attribute(f"quarter {i}", "real") for i in range(PLACES))
        self.codes = toy.sample(60, seed=4)

    @torch.no_grad()
    def split(self, name):
        images = self.toy.decode_bytes(self.codes)
        values = self.toy.quarters(self.codes.values)
        values[: self.unseen] = torch.nan
        return ArraySplit(images, attributes=values)

    def rerender(self, name, attribute, values):
        images = self.split(name).images[: len(values)].clone()
        row = 2 * int(attribute[-1])
        rendered = (255 * values).round().nan_to_num().byte()[:, None, None]
        images[:, 0, row : row + 2] = torch.where(
            values.isnan()[:, None, None], images[:, 0, row : row + 2], rendered
        )
        return images


def test_a_move_is_as_faithful_as_its_share_of_the_true_edit(toy):
    """Along the factor R² is 1; with an equal part of another factor, |wanted|²/|missed|² is 1: R² is 0.

    What a predictor misreads is misread before the move, too, and takes nothing away.
    """
    data = Quarters(toy)
    vectors = {"pure": toy.basis[:, 0], "mixed": (toy.basis[:, 0] + toy.basis[:, 1]) / math.sqrt(2)}
    steps = {
        k: Direction(name="quarter 0", vector=v.detach(), bias=0.0, space="z", sigma=1.0, method="by hand")
        for k, v in vectors.items()
    }
    found = {k: faithfulness(toy, Rows(), v, data.codes, 2.0, data) for k, v in steps.items()}
    assert found["pure"] == pytest.approx(1, abs=0.01) and found["mixed"] == pytest.approx(0, abs=0.05)

    class Askew(Rows):
        def predict(self, images):
            return super().predict(images) - 0.08

    assert faithfulness(toy, Askew(), steps["pure"], data.codes, 2.0, data) == pytest.approx(1, abs=0.01)
    assert faithfulness(toy, Rows(), steps["pure"], data.codes, 0.01, data) is None  # nothing changes
    data.can_rerender = False
    assert faithfulness(toy, Rows(), steps["pure"], data.codes, 2.0, data) is None


def test_kept_and_reach_count_what_they_say():
    scores = [Score("a", "a", "g", True), Score("b", "b", "g", True), Score("n", "n", "g", False)]
    before = torch.tensor([[0.9, 0.9, 1.0], [0.9, 0.2, 2.0], [0.1, 0.4, 3.0], [0.1, torch.nan, 4.0]])
    after = torch.tensor([[0.1, 0.6, 9.0], [0.1, 0.7, 9.0], [0.9, 0.3, 9.0], [0.9, 0.8, 9.0]])
    assert kept_share(before, after, scores, "a") == pytest.approx(2 / 3)
    assert kept_share(before, after, scores, "b") == 0
    assert math.isnan(kept_share(before[:, :1], after[:, :1], scores[:1], "a"))
    real = torch.cat([torch.linspace(0, 1, 101), torch.tensor([torch.nan])])
    assert reach_of(torch.tensor([0.2, 0.5, 0.65]), real) == pytest.approx(0.5, abs=1e-6)
    assert math.isnan(reach_of(torch.tensor([0.0, 0.1]), torch.full((9,), 0.3)))


def test_distances_grow_away_from_the_data(toy):
    data = Quarters(toy)
    step = Direction(
        name="quarter 0", vector=toy.basis[:, 0].detach(), bias=0.0, space="z", sigma=1.0, method="by hand"
    )

    def features(images):
        return images.flatten(1).double() / 255

    real = features(data.split("test").images)
    found = distances_by_alpha(toy, step, data.codes, [-3.0, 0.0, 3.0], real, features)
    assert abs(found[1]) < 0.01 and min(found[0], found[2]) > 10 * abs(found[1])


def test_a_ranking_says_where_z_is_worse_than_w(tmp_path):
    def scores(name, space, leakage, effect=2.0, of="samples"):
        direction = {
            "method": "boundary", "effect": effect, "monotone": 1.0, "worst": "wood", "leakage": leakage,
            "kept": 0.9, "reach": 0.5, "distances": [], "faithful": None,
        }  # fmt: skip
        path = tmp_path / f"{name}-{space}-{of}.json"
        content = {"checkpoint": f"x/{name}", "of": of, "space": space, "directions": {"daylight": direction}}
        path.write_text(json.dumps(content))
        return path

    paths = [
        scores("lia", "z", 0.8), scores("lia", "w", 0.1), scores("glow", "z", 0.05, effect=0.2),
        scores("lia", "w", 0.01, of="test images"), scores("still", "z", None, effect=0.0),
    ]  # fmt: skip
    entries = sorted((each for path in paths for each in read_scores(path)), key=lambda each: each.order())
    assert [(each.model, each.space) for each in entries] == [
        ("x/lia", "w"), ("x/lia", "w"), ("x/lia", "z"), ("x/glow", "z"), ("x/still", "z")
    ]  # fmt: skip
    (note,) = worse_in_z(entries)
    assert "daylight of lia by boundary is worse in z than in w" in note
    (tmp_path / "other.json").write_text('{"directions": {"a": 3}}')
    with pytest.raises(ValueError, match="is not a scores.json"):
        read_scores(tmp_path / "other.json")
    with pytest.raises(ValueError, match="does not exist"):
        read_scores(tmp_path / "nothing.json")
