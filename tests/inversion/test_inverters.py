"""Inverters: samples are reconstructed, records reproduce the same image, failures are kept."""

import copy
import csv
import dataclasses
import json
import math
import re

import pytest
import torch
from PIL import Image
from torch.nn.functional import conv2d

import flows
from flows import images as pixels
from flows.cli import main
from flows.commands.groups import GroupReader
from flows.data.digits import Digits
from flows.errors import CheckpointError, UserError
from flows.inversion.base import reconstruct
from flows.inversion.comparison import Group, compare, likelihood_of
from flows.inversion.distance import Distance
from flows.inversion.edits import edit_consistency, step_in
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact
from flows.inversion.hybrid import Hybrid
from flows.inversion.layer import Layer, activations_at
from flows.inversion.optimise import Optimise, correlation, extent, rate
from flows.inversion.records import ImageSource, digest_of, load_record, record_of, render_record, save_record
from flows.inversion.search import SearchSettings
from flows.inversion.study import MeasureSettings, compare_models
from flows.inversion.tune import Tune
from flows.metrics.perceptual import LPIPS, FeatureNetwork
from flows.metrics.reconstruction import psnr
from flows.models.biggan import BigGAN
from flows.models.codes import Codes
from flows.models.glow import Glow
from flows.models.lia import LIA
from flows.models.stylegan import StyleGAN

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def generator() -> StyleGAN:
    torch.manual_seed(0)
    model = StyleGAN(SHAPE, size=6, channels=(8, 8, 8), mapping_layers=1, mapping_multiplier=1.0).eval()
    with torch.no_grad():
        for layer in model.generator.synthesis.layers:
            layer.strength.fill_(0.05)
    return model


def generated(model: StyleGAN, n: int = 3) -> tuple[Codes, torch.Tensor]:
    """Codes in w and their pictures, scaled into [0, 1] by the colours' weights."""
    codes = model.sample(n, "w", seed=5)
    with torch.no_grad():
        for _ in range(3):
            image = model.decode(codes.values, "w")
            worst = float((2 * image - 1).abs().amax())
            for layer in model.generator.synthesis.to_colours:
                layer.weight *= min(1.0, 0.9 / worst)
    return codes, reconstruct(model, codes)


@pytest.mark.parametrize(
    ("space", "algorithm", "steps"), [("w", "adam", 300), ("w+", "adam", 300), ("w", "lbfgs", 60)]
)
def test_a_generated_picture_is_reconstructed(generator, space, algorithm, steps):
    codes, images = generated(generator)
    inverter = Optimise(space, steps=steps, algorithm=algorithm, lr=0.1, starts=2)
    found = inverter.invert(generator, images, torch.Generator().manual_seed(0))
    assert psnr(images, found.reconstruction).median() > 35
    assert found.losses.shape == (2, 3) and found.trace.shape == (steps, 2, 3)
    if space == "w":
        code = codes.values
        distance = (found.codes.values - code).norm(dim=1).median()
        assert distance < 0.1 * (code - generator.w_mean).norm(dim=1).median()


def test_the_noise_belongs_to_the_record(generator):
    """The known trap of projectors: noise is optimised, thrown away, and the picture is another one."""
    _, images = generated(generator)
    found = Optimise("w", steps=20, noise=True).invert(generator, images, torch.Generator().manual_seed(0))
    assert [tuple(each.shape) for each in found.noise] == [(3, 1, side, side) for side in (4, 8, 8, 16, 16)]
    assert torch.equal(reconstruct(generator, found.codes, found.noise), found.reconstruction)
    assert not torch.equal(reconstruct(generator, found.codes), found.reconstruction)
    for each in found.noise:
        assert each.mean((1, 2, 3)).abs().max() < 1e-5
        assert torch.allclose(each.square().mean((1, 2, 3)), torch.ones(3), atol=1e-4)


def test_the_same_seed_finds_the_same_code_and_touches_nothing(generator):
    _, images = generated(generator)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.critic.requires_grad_(False)
    first, again = (
        Optimise("z", steps=10, starts=2, distance=Distance(feature=0.1)).invert(
            generator, images, torch.Generator().manual_seed(1)
        )
        for _ in range(2)
    )
    assert torch.equal(first.codes.values, again.codes.values)
    assert torch.equal(first.reconstruction, again.reconstruction)
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert not any(p.requires_grad for p in generator.critic.parameters())
    assert all(p.requires_grad for p in generator.generator.parameters())
    generator.critic.requires_grad_(True)


def test_images_are_searched_independently(generator):
    _, images = generated(generator)
    inverter = Optimise("w", steps=15, exploration=0.0)
    together = inverter.invert(generator, images).codes.values
    alone = torch.cat([inverter.invert(generator, image[None]).codes.values for image in images])
    assert torch.allclose(together, alone, atol=1e-4)


def test_a_start_that_diverges_is_recorded_as_failed(generator, lia):
    _, images = generated(generator)
    inverter = Optimise("w", steps=5, lr=1e30)
    found = inverter.invert(generator, images, torch.Generator().manual_seed(0))
    assert found.losses.isinf().all() and not found.succeeded.any()
    within = Hybrid(lr=1e30, steps=5).invert(lia, images)  # whose encoder takes no NaN
    assert within.losses.isinf().any() or within.succeeded.all()

    # What is not finite is decoded as black, and is no picture of a black image.
    black = Group(torch.zeros(2, *SHAPE, dtype=torch.uint8), [ImageSource("a"), ImageSource("b")])
    row = compare({"style": generator}, {"optimise": inverter}, {"black": black})[0].row
    assert row.failed == 1 and row.psnr == 0 and row.bit_exact == 0 and row.ssim == 0
    assert math.isnan(row.undone)


def test_what_breaks_in_one_pair_is_a_row_and_the_others_go_on(generator, lia, monkeypatch):
    class Broken(Encoder):
        def invert(self, model, images, generator=None, labels=None):
            raise RuntimeError("out of memory\nand so on")

    group = {"black": Group(torch.zeros(1, *SHAPE, dtype=torch.uint8), [ImageSource("a")])}
    rows = [
        each.row for each in compare({"lia": lia}, {"broken": Broken("w"), "encoder": Encoder("w")}, group)
    ]
    assert rows[0].reason == "failed: RuntimeError: out of memory" and math.isnan(rows[0].psnr)
    assert rows[1].reason == "" and rows[1].psnr > 0
    monkeypatch.setenv("FLOWS_DEBUG", "1")
    with pytest.raises(RuntimeError, match="out of memory"):
        compare({"lia": lia}, {"broken": Broken("w")}, group)


def test_the_encoder_inverts_flows_and_lia():
    torch.manual_seed(0)
    images = torch.randint(256, (3, *SHAPE), dtype=torch.uint8)
    flow = Glow(SHAPE, levels=2, depth=2, width=8).eval()
    for inverter in (Encoder(), Exact()):
        assert torch.equal(inverter.invert(flow, images).reconstruction, images)
    lia = LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8)).eval()
    found = Encoder("w").invert(lia, images)
    assert torch.equal(found.codes.values, lia.encode(pixels.to_unit(images, 256), "w"))


@pytest.fixture(scope="module")
def lia() -> LIA:
    torch.manual_seed(0)
    return LIA(SHAPE, size=8, channels=(8, 8, 6), encoder_channels=(6, 8, 8)).eval()


@pytest.mark.parametrize("domain", ["none", "encoder", "likelihood"])
def test_hybrids_begin_at_the_encoders_code_and_stay_in_the_domain(lia, domain):
    images = torch.randint(256, (2, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    begin = Encoder("w").invert(lia, images).codes.values
    still = Hybrid(steps=1, lr=1e-12, domain=domain).invert(lia, images).codes.values
    assert torch.allclose(still, begin, atol=1e-6)
    free, held = (
        Hybrid(steps=60, lr=0.05, domain=domain, domain_weight=weight).invert(lia, images)
        for weight in (0.0, 20.0)
    )
    assert free.trace[-1].mean() < free.trace[0].mean()
    if domain == "none":
        assert torch.equal(held.codes.values, free.codes.values)  # there is nothing for the weight to weigh
        return
    distance = {
        "encoder": lambda code: (lia.encode(lia.decode(code, "w").clamp(0, 1), "w") - code).square().mean(),
        "likelihood": lambda code: -lia.log_prob_code(code, "w").mean(),
    }[domain]
    with torch.no_grad():
        assert distance(held.codes.values) < distance(free.codes.values)


def test_tuning_changes_a_copy_and_the_record_has_its_weights(generator):
    _, images = generated(generator)
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    pivot = Optimise("w", steps=10)
    plain = pivot.invert(generator, images[:2], torch.Generator().manual_seed(0))
    found = Tune(pivot, steps=40, lr=3e-3).invert(generator, images[:2], torch.Generator().manual_seed(0))
    assert torch.equal(found.codes.values, plain.codes.values)
    assert (psnr(images[:2], found.reconstruction) > psnr(images[:2], plain.reconstruction) + 1).all()
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    for i in range(2):
        assert found.weights[i] and not any(name.startswith("critic") for name in found.weights[i])
        tuned = copy.deepcopy(generator)
        tuned.load_state_dict(found.weights[i], strict=False)
        assert torch.equal(reconstruct(tuned, found.codes[i : i + 1])[0], found.reconstruction[i])


def test_a_layer_reconstructs_what_no_code_does(generator):
    images = torch.randint(256, (2, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    first = Optimise("w", steps=20)
    plain = first.invert(generator, images, torch.Generator().manual_seed(0))
    found = Layer(first, steps=60, lr=0.1, weight=0.0).invert(
        generator, images, torch.Generator().manual_seed(0)
    )
    assert torch.equal(found.codes.values, plain.codes.values)
    assert list(found.activations) == ["generator.synthesis.layers.0"]
    assert (psnr(images, found.reconstruction) > psnr(images, plain.reconstruction)).all()
    assert found.trace[-1].mean() < found.trace[0].mean()
    held = Layer(first, steps=60, lr=0.1, weight=1e6).invert(
        generator, images, torch.Generator().manual_seed(0)
    )
    moved = [each.activations["generator.synthesis.layers.0"] for each in (held, found)]
    start = activations_at(generator, "generator.synthesis.layers.0", plain.codes, [])
    assert (moved[0] - start).norm() < 0.1 * (moved[1] - start).norm()
    flow = Glow(SHAPE, levels=1, depth=1, width=4).eval()
    for inverter in (Layer(first), Tune(first), Hybrid()):
        assert inverter.why_not(flow) == "its inverse is exact, so there is nothing to refine"
    assert Layer(first, "nowhere").why_not(generator) == "it has no layer 'nowhere'"


def test_a_layer_of_biggan_is_a_block_of_activations():
    torch.manual_seed(0)
    shape = (3, 32, 32)
    model = BigGAN(shape, 3, size=8, width=4, channels=(8, 8, 8, 6), attention=16).eval()
    assert not any("parametrizations" in name for name in model.layers())
    images = torch.randint(256, (2, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    layer = Layer(Optimise(steps=2), steps=2)
    found = layer.invert(model, images, torch.Generator().manual_seed(0))
    assert list(found.activations) == ["generator.blocks.0"] and found.losses.shape == (1, 2)
    # Nothing before the layer is seen behind it.
    other = model.sample(2, "z+c", seed=1)
    seen = reconstruct(model, other, [], found.activations)
    assert not torch.equal(seen, reconstruct(model, other))


def test_a_perceptual_distance_can_lead_the_search(generator):
    class Edges(FeatureNetwork):
        name = "edges"

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.tensor([[[[1.0, -1.0]]]]), requires_grad=False)

        def distance(self, first, second):
            edges = [conv2d(each.mean(1, keepdim=True), self.weight) for each in (first, second)]
            return (edges[0] - edges[1]).square().flatten(1).mean(1)

    # Images that no code draws: the two losses cannot both be small.
    images = torch.randint(256, (3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    network = Edges()
    x = pixels.to_unit(images, 256)
    ends = []
    for distance in (Distance(), Distance(pixel=0.0, perceptual=1.0, network=network)):
        found = Optimise("w", steps=60, distance=distance).invert(
            generator, images, torch.Generator().manual_seed(0)
        )
        y = pixels.to_unit(found.reconstruction, 256)
        ends.append((float((x - y).square().mean()), float(network.distance(x, y).mean())))
    assert ends[0][0] < ends[1][0] and ends[1][1] < ends[0][1]
    with pytest.raises(ValueError, match="perceptual: expected a network"):
        Distance(perceptual=1.0)


def test_a_search_ends_when_its_seconds_are_over(generator):
    _, images = generated(generator)
    found = Optimise("w", steps=100_000, seconds=0.3, starts=2).invert(generator, images)
    assert 2 < found.steps < 5_000 and found.trace.shape[:2] == (found.steps, 2)
    assert found.seconds < 10
    with pytest.raises(ValueError, match="seconds: expected a number above 0"):
        Optimise("w", seconds=0.0)


def test_an_edit_is_undone_exactly_where_codes_are_exact(generator, lia):
    """An encoder that forgets the edit leaves exactly the edit's own difference behind."""
    torch.manual_seed(0)
    flow = Glow(SHAPE, levels=2, depth=2, width=8).eval()
    images = torch.full((2, *SHAPE), 128, dtype=torch.uint8)  # the edit stays within black and white
    found = Exact().invert(flow, images)
    assert edit_consistency(flow, Exact(), found) > 40

    class Forgetful(Encoder):
        def invert(self, model, images, generator=None, labels=None):
            again = super().invert(model, images, generator, labels)
            codes = again.codes.with_values(torch.zeros_like(again.codes.values))
            return dataclasses.replace(again, codes=codes, reconstruction=reconstruct(model, codes))

    found = Forgetful("w").invert(lia, images)
    step = step_in(lia, "w", 0)
    with torch.no_grad():
        lost = reconstruct(lia, found.codes.with_values(found.codes.values - step))
    expected = float(psnr(found.reconstruction, lost).median())
    assert abs(edit_consistency(lia, Forgetful("w"), found) - expected) < 1e-9
    assert math.isnan(
        edit_consistency(lia, Forgetful("w"), dataclasses.replace(found, finite=torch.zeros(2) > 0))
    )


def test_an_edit_is_undone_with_the_tuned_weights(generator):
    """Edit and undoing use the weights that were tuned for each picture, by hand as by `edit_consistency`."""
    _, images = generated(generator)
    tune = Tune(Optimise("w", steps=5), steps=20, lr=1e-2)
    found = tune.invert(generator, images[:2], torch.Generator().manual_seed(0))
    step = step_in(generator, "w", 0)

    def moved(inversion, sign):
        rows = []
        for i, weights in enumerate(inversion.weights):
            own = copy.deepcopy(generator)
            own.load_state_dict(weights, strict=False)
            codes = inversion.codes[i]
            rows.append(reconstruct(own, codes.with_values(codes.values + sign * step)))
        return torch.cat(rows)

    again = tune.invert(generator, moved(found, 1), torch.Generator().manual_seed(0))
    expected = float(psnr(found.reconstruction, moved(again, -1)).median())
    assert edit_consistency(generator, tune, found) == pytest.approx(expected, abs=1e-9)


def test_locality_keeps_the_images_of_other_codes(generator):
    """The regularised generator changes the images at its radius less, and fits the picture all the same."""
    _, images = generated(generator)
    pivot = Optimise("w", steps=10)
    mean, std = extent(generator, "w")
    radius = float(std.square().sum().sqrt())
    change, quality = {}, {}
    for locality in (0.0, 10.0):
        found = Tune(pivot, steps=60, lr=3e-3, locality=locality).invert(
            generator, images[:1], torch.Generator().manual_seed(0)
        )
        own = copy.deepcopy(generator)
        own.load_state_dict(found.weights[0], strict=False)
        towards = 0.5 * (generator.sample_codes(50, "w", torch.Generator().manual_seed(9)) - mean) + mean
        towards = towards - found.codes.values
        near = Codes(found.codes.values + radius * towards / towards.norm(dim=1, keepdim=True), "w")
        with torch.no_grad():
            difference = own.decode_codes(near) - generator.decode_codes(near)
        change[locality] = float(difference.square().mean())
        quality[locality] = float(psnr(images[:1], found.reconstruction))
    assert change[10.0] < 0.5 * change[0.0]
    assert quality[10.0] > float(psnr(images[:1], pivot.invert(generator, images[:1]).reconstruction))


def test_tuning_stops_at_an_lpips(generator):
    class Near(LPIPS):
        """LPIPS without its weights: the mean absolute difference."""

        def __init__(self):
            torch.nn.Module.__init__(self)
            self.name = "LPIPS (near)"

        def distance(self, first, second):
            return (first - second).abs().flatten(1).mean(1)

    _, images = generated(generator)
    distance = Distance(perceptual=1.0, network=Near())
    pivot = Optimise("w", steps=5)
    found = Tune(pivot, steps=200, lr=1e-2, distance=distance).invert(generator, images[:2])
    assert 5 < found.steps < 205 and found.trace.shape == (found.steps - 5, 1, 2)
    for image, other in zip(images[:2], found.reconstruction, strict=True):
        assert (image.float() - other.float()).abs().mean() / 255 < 0.06 + 1 / 255
    never = Tune(pivot, steps=20, distance=distance, stop=0.0).invert(generator, images[:2])
    assert never.steps == 25


def kinds(generator, lia) -> dict[str, tuple]:
    """Inverters of every kind of record, with a model each."""
    torch.manual_seed(0)
    flow = Glow(SHAPE, levels=2, depth=2, width=8).eval()
    return {
        "exact": (flow, Exact()),
        "encoder": (lia, Encoder("z")),
        "noise": (generator, Optimise("w+", steps=4, noise=True, starts=2)),
        "layer": (generator, Layer(Optimise("w", steps=3, noise=True), steps=3)),
        "tune": (generator, Tune(Optimise("w", steps=3, noise=True), steps=3, lr=1e-2)),
    }


@pytest.mark.parametrize("kind", ["exact", "encoder", "noise", "layer", "tune"])
def test_a_record_draws_the_same_bytes_from_its_file(generator, lia, kind, tmp_path):
    model, inverter = kinds(generator, lia)[kind]
    images = torch.randint(256, (3, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    found = inverter.invert(model, images, torch.Generator().manual_seed(5))
    sources = [ImageSource("a"), ImageSource("b", (40, 30), (5, 0, 35, 30)), ImageSource("c")]
    path = tmp_path / "record.safetensors"
    save_record(path, record_of(found, sources, 5), model)
    loaded = load_record(path, model)
    assert loaded.sources == sources and loaded.seed == 5 and loaded.method == found.method
    again = render_record(model, loaded)
    assert torch.equal(again, found.reconstruction) and digest_of(again) == loaded.digest


def test_a_record_of_another_model_is_refused_by_both_fingerprints(generator, lia, tmp_path):
    path = tmp_path / "record.safetensors"
    images = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    save_record(path, record_of(Encoder("w").invert(lia, images), [ImageSource("a")], 0), lia)
    with pytest.raises(CheckpointError) as refused:
        load_record(path, generator)
    assert lia.fingerprint() in str(refused.value) and generator.fingerprint() in str(refused.value)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="is not a record, or was cut off"):
        load_record(path, lia)
    with pytest.raises(CheckpointError, match="is missing"):
        load_record(tmp_path / "nowhere", lia)


def test_a_class_conditional_gan_is_searched_between_its_classes():
    torch.manual_seed(0)
    model = BigGAN(SHAPE, 3, size=6, width=4, channels=(8, 8, 6), attention=8).eval()
    images = reconstruct(model, model.sample(3, "z+c", seed=1))
    found = Optimise(steps=60).invert(model, images, torch.Generator().manual_seed(0))
    assert found.codes.space == "z+c" and found.trace[-1].mean() < 0.5 * found.trace[0].mean()


def test_a_class_conditional_gan_is_searched_in_z_where_classes_are_known():
    torch.manual_seed(0)
    model = BigGAN(SHAPE, 3, size=6, width=4, channels=(8, 8, 6), attention=8).eval()
    codes = model.sample(3, "z", seed=1)
    images, sources = reconstruct(model, codes), [ImageSource(str(i)) for i in range(3)]
    inverters = {"optimise": Optimise("z", steps=60)}
    for labels in (None, torch.tensor([0, 1, -1])):
        row = compare({"gan": model}, inverters, {"own": Group(images, sources, labels=labels)})[0].row
        assert row.note == "codes of 'z' need labels, which these images lack; use space 'z+c'"
        assert row.reason.startswith("impossible: ") and math.isnan(row.psnr)
        with pytest.raises(UserError, match="codes of 'z' need the class of each image"):
            inverters["optimise"].invert(model, images, labels=labels)
    assert inverters["optimise"].why_not(model) == ""  # the model can be inverted, these images cannot
    group = Group(images, sources, {"gan": codes}, labels=codes.labels)
    result = compare({"gan": model}, inverters, {"own": group})[0]
    assert result.row.note == "" and result.row.psnr > 0 and result.row.code_error < 2
    assert torch.equal(result.record.codes.labels, torch.tensor([0, 1, 2]))
    found = inverters["optimise"].invert(model, images, torch.Generator().manual_seed(0), codes.labels)
    assert found.trace[-1].mean() < 0.5 * found.trace[0].mean()


@pytest.fixture(scope="module")
def by_class() -> Glow:
    """A class-conditional flow of digits."""
    torch.manual_seed(0)
    model = Glow((1, 8, 8), 17, levels=2, depth=2, width=8, num_classes=10)
    batch = Digits().split("train").first(256)
    model.initialise(batch.images, batch.labels)
    with torch.no_grad():
        for parameter in model.parameters():  # at first the classes have the same density
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model.eval()


def densities(model: Glow, images: torch.Tensor) -> torch.Tensor:
    """log p(x | y) for each class y, (n, 10), one class after the other."""
    x = pixels.to_unit(images, model.bins)
    with torch.no_grad():
        each = [model.log_density(x, torch.full((len(x),), label)) for label in range(10)]
    return torch.stack(each, 1)


def test_inferred_classes_are_the_most_likely_ones(by_class):
    images = Digits().split("test").first(150).images
    expected = densities(by_class, images).argmax(1)
    assert len(expected.unique()) > 1
    assert torch.equal(by_class.infer_labels(images), expected)
    assert torch.equal(by_class.infer_labels(images, batch=7), expected)
    assert torch.equal(by_class.labels_to_encode(images, None, "z"), expected)
    # Of the classes that are given, only those that are not known are inferred.
    given = (expected + 1) % 10
    given[::2] = -1
    found = by_class.labels_to_encode(images, given, "z")
    assert torch.equal(found[::2], expected[::2]) and torch.equal(found[1::2], given[1::2])
    for wrong in (torch.full((150,), 10), given[:3], given.int()):
        wrong[0] = -1
        with pytest.raises(UserError, match="class-conditional: expected labels 0 … 9"):
            by_class.labels_to_encode(images, wrong, "z")
    nothing = by_class.encode_bytes(images[:0])
    assert nothing.values.shape == (0, 64) and nothing.labels.shape == (0,)
    assert len(by_class.decode_bytes(nothing)) == 0


@pytest.mark.parametrize("inverter", [Exact(), Encoder()], ids=lambda inverter: inverter.name)
def test_a_class_conditional_flow_is_inverted_with_given_and_with_inferred_classes(
    by_class, inverter, tmp_path
):
    batch = Digits().split("test").first(20)
    assert inverter.why_not(by_class) == ""
    given = inverter.invert(by_class, batch.images, labels=batch.labels)
    inferred = inverter.invert(by_class, batch.images)
    expected = densities(by_class, batch.images).argmax(1)
    assert torch.equal(given.codes.labels, batch.labels) and torch.equal(inferred.codes.labels, expected)
    assert not torch.equal(batch.labels, expected)
    other = batch.labels != expected
    assert (given.codes.values != inferred.codes.values).any(1)[other].all()  # the code depends on the class
    for found in (given, inferred):
        assert torch.equal(found.reconstruction, batch.images) and found.succeeded.all()
        assert torch.equal(reconstruct(by_class, found.codes), batch.images)
        path = tmp_path / "record.safetensors"
        save_record(path, record_of(found, [ImageSource(str(i)) for i in range(20)], 0), by_class)
        loaded = load_record(path, by_class)
        assert torch.equal(loaded.codes.labels, found.codes.labels)
        assert torch.equal(render_record(by_class, loaded), batch.images)
    with pytest.raises(UserError, match="class-conditional: expected labels 0 … 9"):
        inverter.invert(by_class, batch.images, labels=torch.full((20,), 10))


def test_compare_has_figures_of_a_class_conditional_flow(by_class):
    batch = Digits().split("test").first(6)
    sources = [ImageSource(f"test {i}") for i in range(6)]
    inverters = {"exact": Exact(), "encoder": Encoder(), "optimise": Optimise(steps=30)}
    codes = by_class.sample(6, temperature=0.7)
    groups = {
        "test": Group(batch.images, sources, labels=batch.labels),
        "unknown": Group(batch.images, sources),
        "generated": Group(by_class.decode_bytes(codes), sources, {"flow": codes}, "flow", codes.labels),
    }
    rows = {
        (result.row.inverter, result.row.group): result.row
        for result in compare({"flow": by_class}, inverters, groups)
    }
    assert len(rows) == 9
    for (inverter, _), row in rows.items():
        assert row.note == "" and row.reason == "" and math.isfinite(row.log_prob)
        assert math.isfinite(row.typicality) and not math.isnan(row.undone) and row.failed == 0
        assert (row.bit_exact == 1 and row.psnr == math.inf) or inverter == "optimise"
    assert rows["optimise", "test"].psnr > 10
    assert rows["exact", "test"].log_prob != rows["exact", "unknown"].log_prob
    assert rows["exact", "generated"].code_error < 1 and math.isnan(rows["exact", "test"].code_error)
    for group in groups.values():
        assert math.isfinite(likelihood_of(by_class, group.images, group.labels))


def test_impossible_pairs_say_why(generator):
    images = torch.zeros(1, *SHAPE, dtype=torch.uint8)
    with pytest.raises(ValueError, match="encoder cannot invert StyleGAN: it has no encoder"):
        Encoder().invert(generator, images)
    flow = Glow(SHAPE, levels=1, depth=1, width=4)
    with pytest.raises(ValueError, match="optimise cannot invert Glow: it has no space 'w'"):
        Optimise("w").invert(flow, images)
    assert Optimise("z", noise=True).why_not(flow) == ""  # of models that have some


def test_the_course_of_the_rate_and_the_penalty_of_noise():
    assert rate(0.0) < 0.05 and rate(0.05) == 1 and rate(0.5) == 1 and rate(0.999) < 0.01
    random = torch.randn(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    stripes = torch.ones(2, 1, 16, 16)
    stripes[..., ::2] = -1
    assert correlation(stripes).min() > 10 * correlation(random).max()


def test_the_middle_of_a_space(generator):
    mean, std = extent(generator, "w")
    assert torch.allclose(mean, generator.w_mean, atol=0.1 * float(std.mean()))
    w = generator.sample_codes(500, "w", torch.Generator().manual_seed(9))
    assert torch.allclose(((w - mean) / std).square().mean(), torch.tensor(1.0), atol=0.1)


@pytest.fixture
def checkpoints(generator, tmp_path):
    """A StyleGAN and a Glow of the same images, saved."""
    torch.manual_seed(0)
    flow = Glow((3, 16, 16), levels=2, depth=2, width=8).eval()
    for name, model in {"style": generator, "flow": flow}.items():
        model.description = {"name": "test"}
        model.save_pretrained(tmp_path / name)
    return tmp_path


def rows_of(path) -> dict:
    with open(path) as opened:
        rows = list(csv.DictReader(opened))
    return {(row["model"], row["inverter"], row["group"]): row for row in rows}


MARK = re.compile(r" \[(\d+)\]$")
"""Number of a note behind a cell."""


def tables_of(path) -> list[tuple[list[dict[str, str]], dict[int, str]]]:
    """Rows by column, and notes by number, of each Markdown table of a file."""
    found = []
    for part in re.split(r"\n(?=\| model)", "\n" + path.read_text()):
        lines = [
            [cell.strip() for cell in line.strip("|").split("|")] for line in part.splitlines() if "|" in line
        ]
        if lines:
            head, _, *rows = lines
            notes = {int(number): text for number, text in re.findall(r"^\[(\d+)\] (.+)$", part, re.M)}
            names = [MARK.sub("", name) for name in head]
            found.append(([dict(zip(names, row, strict=True)) for row in rows], notes))
    return found


def test_compare_writes_table_grid_page_and_records(checkpoints, capsys):
    picture = torch.randint(256, (3, 40, 30), dtype=torch.uint8)
    (checkpoints / "mine").mkdir()
    pixels.to_pillow(picture).save(checkpoints / "mine/a.png")
    models = [str(checkpoints / name) for name in ("style", "flow")]
    out = checkpoints / "out"
    words = ["exact", "encoder", "optimise:w", "layer"]
    images = ["generated:2", "ood", f"user:{checkpoints / 'mine'}"]
    command = ["compare", "--models", *models, "--inverters", *words, "--images", *images]
    command += ["--steps", "3", "--starts", "2", "--perceptual", "none", "--out", str(out)]
    main([*command, "--format", "latex,pdf"])
    by = rows_of(out / "table.csv")
    assert len(by) == 2 * 4 * 3  # generated images are each model's own
    exact = by["flow", "exact", "ood"]
    assert float(exact["bit_exact"]) == 1 and float(exact["psnr"]) == float("inf")
    assert float(exact["restart_gap"]) == 0 and float(by["flow", "exact", "user"]["undone"]) > 15
    assert float(by["flow", "exact", "generated by flow"]["code_error"]) < 1
    assert by["flow", "exact", "ood"]["code_error"] == "nan"
    searched = by["style", "optimise:w", "user"]
    assert searched["starts"] == "2" and float(searched["restart_gap"]) > 0 and float(searched["apart"]) > 0
    assert float(by["style", "optimise:w", "generated by style"]["code_error"]) > 0
    assert "no exact inverse" in by["style", "exact", "user"]["note"]
    assert "no space 'w'" in by["flow", "optimise:w", "user"]["note"]
    page = (out / "index.html").read_text()
    assert "http" not in page and page.count("data:image/png") == 4 and "impossible" in page
    with Image.open(out / "grid-ood.png") as grid, Image.open(out / "overview.png") as picture_of_all:
        assert grid.size[1] == (1 + 2 * 4) * 66  # the input; four possible pairs, each with its error
        methods, pictures = 1 + 4, 6 + 1  # the input, possible pairs; some ood images, and the user's
        width, height = picture_of_all.size
        assert pictures * 66 < width < 1.5 * pictures * 66 and height == methods * 66
    (lines, notes), (facts, unrecorded) = tables_of(out / "summary.md")
    short = {(line["model"], line["inverter"]): line for line in lines}
    assert set(short) == {(model, inverter) for model in ("style", "flow") for inverter in words}
    reasons = {
        pair: notes[int(mark[1])]
        for pair, line in short.items()
        if (mark := MARK.search(line["generated, dB"]))
    }
    assert set(reasons) == {
        ("style", "exact"),
        ("style", "encoder"),
        ("flow", "optimise:w"),
        ("flow", "layer"),
    }
    assert "no exact inverse" in reasons["style", "exact"] and "no space 'w'" in reasons["flow", "optimise:w"]
    by_model = {line["model"]: line for line in facts}
    flow = flows.load(checkpoints / "flow")
    assert by_model["flow"]["parameters"] == f"{sum(each.numel() for each in flow.parameters()):,}"
    assert by_model["flow"]["training, hours"] == "– [1]" and "not recorded" in unrecorded[1]
    assert short["flow", "exact"]["ood, dB"] == "∞" and short["flow", "exact"]["bit-exact"] == "100 %"
    own = float(by["style", "optimise:w", "generated by style"]["psnr"])
    assert short["style", "optimise:w"]["generated, dB"] == f"{own:.1f}"
    printed = capsys.readouterr().out
    assert printed.count("impossible: it has no exact inverse") == 1, "a sentence stands once"
    table = json.loads((out / "table.json").read_text())
    assert table["perceptual_network"] == "no network"
    assert table["models"]["flow"]["parameters"] == sum(each.numel() for each in flow.parameters())
    assert table["models"]["flow"]["images_shown"] is None and table["models"]["flow"]["images_shown_reason"]
    assert table["models"]["flow"]["compared_on"] == [by["flow", "exact", "ood"]["hardware"]]
    figures = ["grid-generated-by-flow", "grid-generated-by-style", "grid-ood", "grid-user", "overview"]
    assert sorted(path.stem for path in out.glob("*.pdf")) == figures
    assert sorted(path.name for path in out.glob("*.tex")) == [
        f"table-{name}.tex" for name in ("groups", "models", "summary")
    ]
    for path in (out / "summary.md", out / "index.html", out / "table-summary.tex", out / "table-groups.tex"):
        assert path.read_text().count("impossible: it has no exact inverse") == 1, path.name
    first = next(row for row in table["rows"] if row["group"] == "ood" and not row["note"])
    assert list(first["each_psnr"])[:2] == ["cat", "person"]

    # Pairs are taken as they are, and files of formats that are not asked for any more are removed.
    main([*command, "--resume", "true"])
    assert not list(out.glob("*.pdf")) and not list(out.glob("*.tex"))
    assert json.loads((out / "table.json").read_text()) == table

    # A record is reproduced, in the picture that it was cropped from.
    record = str(out / "records/flow-exact-user.safetensors")
    flow = str(checkpoints / "flow")
    mine = str(checkpoints / "mine")
    again = ["render", record, "--checkpoint", flow, "--output", str(out / "again"), "--undo", "true"]
    with pytest.raises(SystemExit) as ended:
        main(again)
    assert ended.value.code == 2 and "--pictures names the folder with a.png" in capsys.readouterr().err
    main([*again, "--pictures", mine])
    assert "; identical to the recorded bytes" in capsys.readouterr().out
    with Image.open(out / "again/0000-a.png") as whole:
        assert whole.size == (30, 40)
        kept = pixels.from_pillow(whole, 3)
        assert torch.equal(kept[:, :5], picture[:, :5]) and torch.equal(kept[:, 35:], picture[:, 35:])
    with pytest.raises(SystemExit) as ended:
        main(["render", record, "--checkpoint", str(checkpoints / "style"), "--output", str(out / "no")])
    assert ended.value.code == 2 and "cannot be used with StyleGAN" in capsys.readouterr().err
    assert not (out / "no").exists()


def test_compare_takes_turned_pictures_of_any_kind(checkpoints):
    """EXIF-rotated, transparent, grey: upright, over white, in colour."""
    folder = checkpoints / "mine"
    folder.mkdir()
    picture = Image.new("RGBA", (20, 40), (255, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 20, 20, 40))
    picture.save(folder / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90° clockwise
    Image.new("RGB", (40, 20), "blue").save(folder / "b.jpg", exif=exif)
    Image.new("L", (16, 16), 77).save(folder / "c.png")
    group = GroupReader({"flow": flows.load(checkpoints / "flow")}).read(f"user:{folder}")["user"]
    assert [source.size for source in group.sources] == [(20, 40), (20, 40), (16, 16)]
    assert [source.box for source in group.sources] == [(0, 10, 20, 30), (0, 10, 20, 30), (0, 0, 16, 16)]
    assert group.images.shape == (3, *SHAPE) and (group.images[2] == 77).all()
    assert group.images[0, :, 0].tolist() == [[255] * 16, [0] * 16, [0] * 16]
    assert (group.images[0, :, -1] == 255).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"inverters": ["magic"]}, "there is no 'magic'"),
        ({"images": ["test"]}, "there is no 'test'; expected test:N"),
        ({"images": ["user:/nowhere"]}, "no pictures"),
        ({"images": ["user"]}, "there is no 'user'"),
        ({"images": ["user:~nobody-of-that-name/x"]}, "no such user"),
        ({"lr": ["-1"]}, "lr"),
        ({"perceptual": ["none"], "perceptual_weight": ["1"]}, "there is no perceptual network"),
        ({"perceptual": ["inception"]}, "--perceptual: there is no feature network 'inception'"),
    ],
)
def test_compare_names_mistakes(checkpoints, capsys, change, message):
    given = {"models": [str(checkpoints / "flow")], "inverters": ["exact"], "images": ["ood"], **change}
    words = [word for name, values in given.items() for word in (f"--{name}", *values)]
    with pytest.raises(SystemExit) as ended:
        main(["compare", *words, "--out", str(checkpoints / "out")])
    assert ended.value.code == 2 and message in capsys.readouterr().err
    assert not (checkpoints / "out").exists()


def test_a_comparison_is_one_call(checkpoints, tmp_path):
    """Inverters are given by name and by hand; the result saves itself."""
    model = flows.load(checkpoints / "flow")
    images = model.decode_bytes(model.sample(3))
    found = compare_models(
        {"flow": model},
        ["exact", Encoder(), "optimise"],
        {"own": images},
        SearchSettings(steps=2),
        MeasureSettings(perceptual="none", edits=False),
    )
    rows = {result.row.inverter: result.row for result in found.results}
    assert rows["exact"].bit_exact == 1.0 and rows.keys() == {"exact", "encoder", "optimise"}
    assert rows["optimise"].steps == 2 and found.bits["flow"]["own"] > 0
    assert {"index.html", "table.csv"} <= set(found.save(tmp_path))
    assert (tmp_path / "index.html").is_file() and len(found.tables()[0].rows) == 3
    with pytest.raises(UserError, match="two are named 'encoder'"):
        compare_models({"flow": model}, ["encoder", Encoder()], {"own": images})
