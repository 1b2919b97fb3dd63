"""Whole models: exact algebra, known densities, files, and what happens to bad input."""

import json
import math
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import HfApi
from torch import Tensor

import flows
from flows import images as pixels
from flows.bijections.chain import Chain
from flows.bijections.coupling import AffineCoupling
from flows.bijections.dequantise import UniformDequantiser, VariationalDequantiser
from flows.bijections.linear import InvertibleConv1x1
from flows.bijections.partition import Halves
from flows.bijections.pixels import Centre, Logit
from flows.bijections.scales import TwoSided
from flows.bijections.scaling import DiagonalScaling
from flows.bijections.squeeze import Flatten
from flows.core.numerics import exact_arithmetic, normal_rows
from flows.data.digits import Digits
from flows.errors import CheckpointError
from flows.inversion.exact import decode_exactly, invert_exactly
from flows.metrics.likelihood import bits_per_dim, evaluate_likelihood, importance_weighted
from flows.metrics.roundtrip import round_trip, summarise
from flows.models.base import LikelihoodModel
from flows.models.flow import Flow
from flows.models.glow import Glow
from flows.models.nice import NICE
from flows.models.priors import Logistic, Normal
from flows.models.realnvp import RealNVP
from flows.testing import Case, broken_laws, jacobian_log_det

SMALL = (3, 4, 4)

MODELS = {
    "nice": lambda: NICE(SMALL, width=12, hidden_layers=2),
    "nice, released order": lambda: NICE(SMALL, width=12, hidden_layers=[1, 2, 1, 1], order="reversed"),
    "nice, halves, normal": lambda: NICE(
        SMALL, width=12, hidden_layers=1, order="halves", prior="normal", value_range=2.0
    ),
    "realnvp": lambda: RealNVP(SMALL, levels=2, width=4, blocks=1),
    "realnvp, paper": lambda: RealNVP(SMALL, levels=2, width=4, blocks=1, flavour="paper", scale="tanh"),
    "glow": lambda: Glow(SMALL, levels=2, depth=2, width=6),
    "glow, paper, lu": lambda: Glow(
        SMALL, levels=2, depth=2, width=6, flavour="paper", scale="exp", permutation="lu"
    ),
    "glow, additive, reverse": lambda: Glow(
        SMALL, levels=1, depth=2, width=6, coupling="additive", permutation="reverse", learned_top=False
    ),
    "glow, sigmoid, random": lambda: Glow(
        SMALL, levels=2, depth=1, width=6, scale="sigmoid", permutation="random", learned_split=False
    ),
    "glow, by class": lambda: Glow(SMALL, levels=2, depth=1, width=6, num_classes=4, classifier_weight=0.01),
    "glow, variational": lambda: Glow(SMALL, levels=1, depth=1, width=6, dequantisation="variational"),
}


def some_images(shape=SMALL, n: int = 5, seed: int = 0) -> Tensor:
    return torch.randint(256, (n, *shape), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def some_labels(model: Flow, n: int = 5) -> Tensor | None:
    return torch.arange(n) % model.num_classes if model.num_classes else None


@pytest.fixture(params=MODELS, name="build")
def _build(request):
    return MODELS[request.param]


# Algebra ----------------------------------------------------------------------------------------------


def test_bijection_keeps_every_law(build):
    classes = build().num_classes
    case = Case(lambda: build().bijection, SMALL, interval=(0.02, 0.98), num_classes=classes)
    assert broken_laws(case) == {}


def test_every_parameter_of_a_model_receives_gradient(build):
    model = build().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    likelihood = model(some_images(), some_labels(model), torch.Generator().manual_seed(0))
    loss = -likelihood.log_prob.mean() + sum(likelihood.penalties.values())
    loss.backward()
    dead = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert dead == []


@pytest.mark.parametrize("precision", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "build_deep",
    [
        lambda: Glow((3, 32, 32), levels=3, depth=32, width=32),
        lambda: RealNVP((3, 32, 32), levels=4, width=8, blocks=2),
        lambda: NICE((3, 32, 32), width=64),
    ],
    ids=["glow K=32 L=3", "realnvp to 4×4", "nice"],
)
def test_round_trip_at_initialisation_at_full_depth(build_deep, precision):
    model = build_deep()
    images = some_images((3, 32, 32), 4)
    # Zero-initialised last layers make every coupling the identity, and any flow look perfect.
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1e-3 * torch.randn_like(parameter))
    model.train()
    model.initialise(images)
    model.to(precision).eval()
    x = pixels.to_unit(images, dtype=precision)
    with torch.no_grad():
        error = (model.decode(model.encode(x)) - x).abs().max()
    assert error <= (1e-5 if precision == torch.float32 else 1e-12)


# Likelihoods ------------------------------------------------------------------------------------------


class Assembled(Flow):
    """A flow put together by a test."""

    def __init__(self, bijection, prior, bins=256, shape=SMALL):
        super().__init__()
        self.assemble(shape, bijection, UniformDequantiser(bins), prior)


def test_uniform_density_gives_exactly_log2_of_the_bins():
    """x uniform on [0, 1]: mapped by logit to a standard logistic, its log-likelihood is known exactly."""
    for bins in (256, 32, 17):
        steps = (Logit(alpha=0.0), Flatten(SMALL), DiagonalScaling(math.prod(SMALL)))
        model = Assembled(Chain(*steps), Logistic(), bins).double()
        bits = bits_per_dim(model.log_prob(some_images()), math.prod(SMALL))
        assert torch.allclose(bits, torch.full_like(bits, math.log2(bins)), rtol=1e-6)


def test_gaussian_density_through_the_whole_chain():
    """A linear flow is a Gaussian N(μ, Σ) on pixels; torch.distributions knows its density."""
    conv = InvertibleConv1x1(3)
    scaling = DiagonalScaling(math.prod(SMALL))
    torch.nn.init.normal_(scaling.log_scale, std=0.3)
    model = Assembled(Chain(Centre(2.0), conv, Flatten(SMALL), scaling), Normal()).double()
    size = math.prod(SMALL)
    with torch.no_grad():
        offset = model.bijection(torch.zeros(1, *SMALL, dtype=torch.float64))[0][0]
        basis = torch.eye(size, dtype=torch.float64).view(size, *SMALL)
        matrix = (model.bijection(basis)[0] - offset).T  # z = matrix·x + offset
    inverse = torch.linalg.inv(matrix)
    oracle = torch.distributions.MultivariateNormal(-inverse @ offset, inverse @ inverse.T)

    images, seed = some_images(), torch.Generator().manual_seed(3)
    bound = model(images, generator=seed)
    x, log_q = model.dequantiser(
        images,
        int(torch.randint(2**62, (), generator=torch.Generator().manual_seed(3))),
        range(5),
        torch.float64,
    )
    assert torch.allclose(log_q, torch.full_like(log_q, size * math.log(256)), rtol=1e-12)
    expected = oracle.log_prob(x.flatten(1)) - log_q
    assert torch.allclose(bound.log_prob, expected, rtol=1e-6)
    assert torch.allclose(model.log_density(x), oracle.log_prob(x.flatten(1)), rtol=1e-6)


def test_log_density_integrates_to_one():
    """Four pixels: the mean density over a fine grid of [0, 1]⁴ is the mass that it holds there."""
    torch.manual_seed(3)
    model = RealNVP((1, 2, 2), levels=1, width=4, blocks=1, alpha=0.0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.double().eval()
    side = torch.linspace(0, 1, 25, dtype=torch.float64)
    side = (side[1:] + side[:-1]) / 2
    points = torch.cartesian_prod(side, side, side, side).view(-1, 1, 2, 2)
    with torch.no_grad():
        mass = model.log_density(points).exp().mean()
    assert float(mass) == pytest.approx(1.0, abs=0.02)


def test_terms_sum_to_the_bound(build):
    model = build().double().eval()
    likelihood = model(some_images(), some_labels(model))
    total = torch.stack(list(likelihood.terms.values())).sum(0)
    assert torch.allclose(total, likelihood.log_prob, rtol=1e-12)
    assert likelihood.log_prob.shape == (5,)


def test_every_bin_of_a_uniform_dequantiser_is_met_and_undone():
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for bins in (256, 32, 17):
        x, _ = UniformDequantiser(bins)(images, 7, [0], torch.float64)
        assert torch.equal(pixels.to_bytes(x, bins), pixels.reduce(images, bins))
        assert len(pixels.reduce(images, bins).unique()) == bins


def test_fp32_dequantisation_stays_in_the_bin():
    """(255 + u)/256 rounds to 1 in fp32 for the largest u below 1, which is another bin."""
    largest = torch.nextafter(torch.tensor(1.0), torch.tensor(0.0))
    images = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16)
    for bins in (256, 32, 17):
        x = UniformDequantiser(bins).place(images, largest.expand(images.shape))
        assert x.max() < 1
        assert torch.equal(pixels.to_bytes(x, bins), pixels.reduce(images, bins))


def test_bins_of_more_than_a_byte_are_refused():
    with pytest.raises(ValueError, match="expected 2 to 256 grey levels"):
        UniformDequantiser(1024)


def test_a_network_with_too_few_outputs_is_refused():
    class One(torch.nn.Module):
        def forward(self, kept, context):
            return kept.mean(1, keepdim=True).repeat(1, 2, 1, 1)

    coupling = AffineCoupling(Halves(), One(), TwoSided())
    with pytest.raises(ValueError, match="expected the same shape, that is"):
        coupling(torch.randn(2, 4, 3, 3))


def test_variational_dequantiser_density_matches_its_jacobian():
    model = MODELS["glow, variational"]().double().eval()
    dequantiser = model.dequantiser
    assert isinstance(dequantiser, VariationalDequantiser)
    with torch.no_grad():
        for parameter in dequantiser.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    images = some_images(n=2)
    x, log_q = dequantiser(images, 5, [0, 1], torch.float64)
    assert torch.equal(pixels.to_bytes(x), images)
    epsilon = normal_rows(5, [0, 1], SMALL, x)
    context = pixels.to_unit(images, dtype=torch.float64) - 0.5
    oracle = jacobian_log_det(dequantiser.flow.forward, epsilon, context)
    normal = torch.distributions.Normal(0, 1).log_prob(epsilon).flatten(1).sum(1)
    expected = normal - oracle + math.prod(SMALL) * math.log(256)
    assert torch.allclose(log_q, expected, rtol=1e-8)


def test_importance_weighted_bound_is_tighter():
    model = Glow((1, 8, 8), bins=17, levels=1, depth=2, width=8)
    split = Digits().split("test")
    model.initialise(split.first(64).images)
    part = split.first(32)
    with torch.no_grad():
        single = model.log_prob(part.images, seed=torch.Generator().manual_seed(1))
    assert importance_weighted(model, part, 20).mean() > single.mean()


def test_evaluation_names_the_image_that_is_not_finite():
    model = Glow((1, 8, 8), bins=17, levels=1, depth=1, width=4)
    with torch.no_grad():
        model.bijection.levels[0].steps[2].steps[0].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="likelihood of image 0 is nan"):
        evaluate_likelihood(model, Digits().split("test"), 10)


# Codes ------------------------------------------------------------------------------------------------


def test_encode_decode_and_spaces(build):
    model = build().double().eval()
    images = some_images()
    labels = some_labels(model)
    x = pixels.to_unit(images, dtype=torch.float64)
    code = model.encode(x, labels=labels)
    assert code.shape == (5, *model.spaces["z"].shape)
    assert torch.equal(pixels.to_bytes(model.decode(code, labels=labels)), images)
    levels = list(model.spaces["z"].levels.values())
    assert levels[0].start == 0 and levels[-1].stop == code.shape[1]
    assert all(a.stop == b.start for a, b in zip(levels, levels[1:], strict=False))
    assert {name: space.guarantee for name, space in model.spaces.items()} == {"z": "exact"}
    assert torch.equal(model.convert(code, "z", "z"), code)
    with pytest.raises(ValueError, match="no space 'w': expected one of z"):
        model.encode(x, "w")


def test_levels_are_coarse_to_fine():
    model = Glow((1, 16, 16), levels=3, depth=1, width=4)
    sizes = [part.stop - part.start for part in model.spaces["z"].levels.values()]
    assert list(model.spaces["z"].levels) == ["level3", "level2", "level1"]
    assert sizes == [16 * 2 * 2, 4 * 4 * 4, 2 * 8 * 8]


def test_sample_i_does_not_depend_on_n(build):
    model = build()
    few = model.sample_codes(3, generator=torch.Generator().manual_seed(5))
    many = model.sample_codes(7, generator=torch.Generator().manual_seed(5))
    assert torch.equal(few, many[:3])
    cold = model.sample_codes(3, generator=torch.Generator().manual_seed(5), temperature=0.5)
    assert torch.equal(cold, 0.5 * few)


def test_sampled_codes_follow_the_prior():
    for prior, deviation in {"normal": 1.0, "logistic": math.pi / math.sqrt(3)}.items():
        model = NICE((1, 8, 8), width=4, hidden_layers=1, prior=prior)
        codes = model.sample_codes(2000, generator=torch.Generator().manual_seed(0))
        assert float(codes.mean()) == pytest.approx(0, abs=0.02)
        assert float(codes.std()) == pytest.approx(deviation, rel=0.01)


def test_every_layer_is_hookable_in_the_generating_direction(build):
    model = build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    layers, code, labels = model.layers(), model.sample_codes(2), some_labels(model, 2)
    assert layers or isinstance(model, NICE), "only vectors of pixels have no maps to hook"
    with torch.no_grad():
        plain = model.decode(code, labels=labels)
        for name, layer in layers.items():
            seen = []

            def edit(_, __, output, seen=seen):
                seen.append(output.shape[1:])
                return output + 0.5

            handle = model.get_submodule(name).register_forward_hook(edit)
            edited = model.decode(code, labels=labels)
            handle.remove()
            assert (layer.channels, *layer.size) in [tuple(shape) for shape in seen], name
            assert not torch.equal(plain, edited), name
        assert torch.equal(model.decode(code, labels=labels), plain)


def test_using_a_model_in_training_mode_leaves_it_as_it_was(build):
    """Batch statistics would make encoding depend on the batch, and move the running ones."""
    model = build().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = some_images(), some_labels(model)
    x = pixels.to_unit(images)
    alone = model.encode(x[:1], labels=None if labels is None else labels[:1])
    assert torch.allclose(model.encode(x, labels=labels)[:1], alone, atol=1e-5)
    assert all(given.certified for given in invert_exactly(model, images, labels).certificates)
    assert model.training and all(part.training for part in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_certificate_holds_where_autocast_was_on():
    """Encoded under bf16 autocast, decoded without: both run in fp32, or the certificate would be false."""
    model = Glow((1, 8, 8), levels=2, depth=8, width=16).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    images = some_images((1, 8, 8), 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inversion = invert_exactly(model, images)
    assert all(given.certified and given.precision == "fp32" for given in inversion.certificates)
    assert torch.equal(decode_exactly(model, inversion.codes, ["fp32"] * 8), images)


def test_exact_arithmetic_switches_tf32_off_and_back():
    before = torch.backends.cudnn.allow_tf32
    with pytest.raises(KeyError), exact_arithmetic(torch.device("cpu")):
        assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before


def test_round_trip_of_what_is_not_finite_says_so():
    model = Glow((1, 8, 8), levels=1, depth=1, width=4).eval()
    with torch.no_grad():
        model.bijection.levels[0].steps[2].steps[0].logs.fill_(60.0)
    row = summarise("noise", "fp32", [round_trip(model, some_images((1, 8, 8)))])
    assert not row.finite and row.max_error == float("inf") and row.bit_exact == 0


# Data-dependent initialisation ------------------------------------------------------------------------


def test_actnorm_output_is_normalised_by_the_batch_and_only_once():
    model = Glow((1, 8, 8), bins=17, levels=1, depth=2, width=6)
    digits = Digits().split("train").first(128).images
    seen = []
    norm = model.bijection.levels[0].steps[2].steps[0]
    model.initialise(digits)
    handle = norm.register_forward_hook(lambda _, __, output: seen.append(output[0]))
    model(digits, generator=torch.Generator().manual_seed(0))
    handle.remove()
    assert seen[0].mean((0, 2, 3)).abs().max() < 1e-4
    assert (seen[0].std((0, 2, 3)) - 1).abs().max() < 1e-2
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.initialise(255 - digits)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_nice_whitens_its_input():
    model = NICE((1, 8, 8), bins=17, width=8, hidden_layers=1, whiten=0.0)
    digits = Digits().split("train").first(None).images
    model.initialise(digits)
    whitening = model.bijection.steps[1]
    x, _ = model.dequantiser(digits, 1, range(len(digits)), torch.float32)
    with torch.no_grad():
        white, _ = whitening(x.flatten(1))
    covariance = torch.cov(white.T)
    assert (covariance - torch.eye(64)).abs().max() < 0.2
    assert whitening.initialised


# Files ------------------------------------------------------------------------------------------------


def test_a_fresh_process_loads_the_same_functions(tmp_path):
    for name, build in MODELS.items():
        model = build().eval()
        model.initialise(some_images(), some_labels(model))
        model.eval()
        model.description = {"name": name}
        model.save_pretrained(tmp_path / name)
        images, labels = some_images(seed=2), some_labels(model)
        with torch.no_grad():
            expected = model.log_prob(images, labels, torch.Generator().manual_seed(0))
        torch.save((images, labels, expected, model.fingerprint()), tmp_path / name / "expected.pt")
    script = (
        "import sys, pathlib, torch, flows\n"
        "for folder in pathlib.Path(sys.argv[1]).iterdir():\n"
        "    model = flows.load(folder)\n"
        "    images, labels, expected, fingerprint = torch.load(folder / 'expected.pt')\n"
        "    with torch.no_grad():\n"
        "        value = model.log_prob(images, labels, torch.Generator().manual_seed(0))\n"
        "    same = torch.equal(value, expected) and model.fingerprint() == fingerprint\n"
        "    print(same and model.description['name'] == folder.name, folder.name)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    answers = done.stdout.splitlines()
    assert len(answers) == len(MODELS)
    assert [line for line in answers if not line.startswith("True")] == []


@pytest.fixture(name="saved")
def _saved(tmp_path):
    model = MODELS["glow"]()
    model.save_pretrained(tmp_path)
    return tmp_path


def test_exported_folder_holds_config_weights_and_card(saved):
    assert {path.name for path in saved.iterdir()} == {"config.json", "model.safetensors", "README.md"}
    config = json.loads((saved / "config.json").read_text())
    assert config["model_type"] == "Glow" and config["format_version"] == 1 and config["depth"] == 2
    assert (saved / "model.safetensors").stat().st_mode & 0o044 == 0o044
    assert "library_name: flows" in (saved / "README.md").read_text()


def test_loading_as_another_class_says_so(saved):
    with pytest.raises(CheckpointError, match="holds a Glow, not a NICE"):
        NICE.from_pretrained(saved)
    assert isinstance(Glow.from_pretrained(saved), LikelihoodModel)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "model.safetensors is missing"),
        (lambda f: _flip_last_byte(f / "model.safetensors"), "model.safetensors was altered"),
        (lambda f: _cut(f / "model.safetensors"), "model.safetensors was altered"),
        (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        (lambda f: _cut(f / "config.json"), "config.json was altered or cut off: not JSON"),
        (
            lambda f: _set(f / "config.json", "format_version", 7),
            "format version 7, this release of flows reads 1",
        ),
        (
            lambda f: _set(f / "config.json", "model_type", "os.system"),
            "which this release of flows cannot load here",
        ),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(saved, damage, message):
    damage(saved)
    with pytest.raises(CheckpointError, match=message):
        flows.load(saved)


def test_a_path_that_does_not_exist_is_not_looked_up_on_the_hub():
    with pytest.raises(CheckpointError, match="there is no folder checkpoints/nothing-there"):
        flows.load("checkpoints/nothing-there")


def _flip_last_byte(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def test_what_is_published_does_not_say_where_the_pictures_lay(monkeypatch):
    model = MODELS["nice"]()
    source = {"class_path": "flows.data.folder.Folder", "init_args": {"path": "/home/somebody/pictures"}}
    model.description = {"name": "folder", "source": source}
    uploaded = {}

    def upload_folder(self, *, folder_path, **_):
        uploaded.update({path.name: path.read_bytes() for path in Path(folder_path).iterdir()})

    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: SimpleNamespace(repo_id=repo_id))
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    model.push_to_hub("somebody/nice")
    assert sorted(uploaded) == ["README.md", "config.json", "model.safetensors"]
    assert json.loads(uploaded["config.json"])["description"] == {"name": "folder"}
    assert not any(b"somebody/pictures" in content for content in uploaded.values())
    assert model.description["source"] == source


def _set(path, key, value):
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))


# Bad input --------------------------------------------------------------------------------------------


def test_wrong_images_have_messages_of_their_own():
    model = MODELS["glow"]()
    with pytest.raises(ValueError, match=r"expected images of shape \(batch, 3, 4, 4\), got \(2, 3, 5, 4\)"):
        model.log_prob(torch.zeros(2, 3, 5, 4, dtype=torch.uint8))
    with pytest.raises(ValueError, match="expected uint8 images"):
        model.log_prob(torch.zeros(2, 3, 4, 4))
    with pytest.raises(ValueError, match=r"within \[0, 1\], got values from -1 to 2"):
        model.encode(torch.tensor([-1.0, 2.0]).repeat(24).view(1, 3, 4, 4))
    with pytest.raises(ValueError, match=r"expected codes of shape \(batch, 48\)"):
        model.decode(torch.zeros(1, 47))


def test_labels_are_asked_for_and_checked():
    model = MODELS["glow, by class"]()
    with pytest.raises(ValueError, match=r"expected labels 0 … 3, int64 \(5,\), got none"):
        model.log_prob(some_images())
    with pytest.raises(ValueError, match=r"got 0 … 4"):
        model.log_prob(some_images(), torch.arange(5))


def test_sizes_that_cannot_be_squeezed_are_refused_at_construction():
    with pytest.raises(ValueError, match="cannot squeeze 7×7 pixels"):
        Glow((1, 28, 28), levels=3, depth=1, width=4)


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (Glow, {"permutation": "pain"}, "permutation: expected one of .* got 'pain'. Did you mean 'plain'?"),
        (Glow, {"scale": "two_sided"}, "scale: .* Did you mean 'two-sided'?"),
        (Glow, {"coupling": "afine"}, "coupling: .* Did you mean 'affine'?"),
        (Glow, {"dequantisation": "none"}, "dequantisation: expected one of uniform, variational"),
        (Glow, {"levels": 0}, "levels: expected a whole number above 0, got 0"),
        (Glow, {"num_classes": 3, "learned_top": False}, "num_classes: .* set learned_top"),
        (Glow, {"classifier_weight": 0.1}, "classifier_weight: .* set num_classes"),
        (RealNVP, {"flavour": "offical"}, "flavour: .* Did you mean 'official'?"),
        (NICE, {"order": "reverse"}, "order: .* Did you mean 'reversed'?"),
        (NICE, {"prior": "gaussian"}, "prior: expected one of normal, logistic; got 'gaussian'"),
        (NICE, {"hidden_layers": 0}, "hidden_layers: expected a whole number above 0 or a list"),
        (NICE, {"hidden_layers": [1, 2]}, "hidden_layers: expected one number, or one per coupling"),
    ],
)
def test_misspelt_and_impossible_arguments_are_refused_at_construction(model, arguments, message):
    with pytest.raises(ValueError, match=message):
        model((3, 8, 8), **arguments)
