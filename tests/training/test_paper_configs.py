"""The published recipes: every one parses, builds at full size, and says what it reproduces.

Models are built on the meta device, which has shapes and no memory. Parameters are counted a second
time from the papers' and codes' descriptions, without a look at ours.
"""

import itertools
import math
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from jsonargparse import Namespace

from flows.bijections.scaling import LearnedPrior
from flows.config import experiment_parser, parse_experiment
from flows.core.parser import Parser
from flows.data.base import Batch
from flows.models.base import LikelihoodModel
from flows.models.lia import LIA

Build = Callable[..., Namespace]

FOLDER = Path(__file__).parents[2] / "configs" / "paper"
CONFIGS = sorted(FOLDER.glob("*.yaml"))
NAMES = [path.stem for path in CONFIGS]


@cache
def variants(path: Path) -> dict[str, dict[str, Any]]:
    return yaml.safe_load(path.read_text())["variants"]


def words(options: dict[str, Any]) -> list[str]:
    """The options of a variant as words of a command line."""
    return [f"--{key}={'null' if value is None else value}" for key, value in options.items()]


ALL_VARIANTS = [(path.stem, name) for path in CONFIGS for name in variants(path)]


@pytest.fixture(scope="module")
def parser() -> Parser:
    return experiment_parser()


@pytest.fixture(scope="module")
def build(parser: Parser) -> Build:
    """The experiment of a config or its variant, as train.py makes it, on the meta device."""

    @cache
    def build(name: str, variant: str | None = None, *more: str) -> Namespace:
        path = FOLDER / f"{name}.yaml"
        options = words(variants(path)[variant]) if variant else []
        arguments = [f"--config={path}", *options, *more]
        with torch.device("meta"):
            return parser.instantiate(parser.parse_args(arguments))

    return build


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


# Counted from the descriptions --------------------------------------------------------------------


def nice_parameters(size: int, hidden_layers: list[int], width: int) -> int:
    """Couplings from one half of the entries to the other, and one scale per entry."""
    half = size // 2
    first, last = (half + 1) * width, (width + 1) * half
    return sum(first + (n - 1) * (width + 1) * width + last for n in hidden_layers) + size


def glow_parameters(levels: int, depth: int, width: int, affine: bool) -> int:
    """openai/glow, but for the learned top prior; convolutions of 3×3 have a border channel."""
    total, channels = 0, 3
    for level in range(levels):
        channels *= 4
        half = channels // 2
        outputs = channels if affine else half
        network = 9 * (half + 1) * width + 2 * width  # 3×3, ActNorm
        network += width * width + 2 * width  # 1×1, ActNorm
        network += 9 * (width + 1) * outputs + 2 * outputs  # 3×3, bias and gain
        total += depth * (2 * channels + channels**2 + network)  # ActNorm, 1×1, coupling
        if level + 1 < levels:
            total += 9 * (half + 1) * channels + 2 * channels  # mean and log-std of the half that leaves
            channels = half
    return total


def realnvp_parameters(levels: int, width: int, blocks: int) -> int:
    """tensorflow/models, research/real_nvp; batch norms have a shift and no gain."""

    def coupling(kept: int, changed: int, maps: int, checkerboard: bool) -> int:
        inputs = 2 * kept + checkerboard  # [h, −h], and the mask
        skip = maps**2 + 2 * maps  # 1×1, gain and bias
        block = maps + 9 * maps**2 + maps + 9 * maps**2 + 2 * maps  # norm, 3×3, norm, 3×3 with gain and bias
        total = kept + 9 * inputs * maps + maps + skip  # input norm, 3×3 with bias, its skip
        total += blocks * (block + skip)
        return total + maps + maps * 2 * changed + 2 * 2 * changed + 1  # norm, 1×1, and the tanh's factor

    total, channels = 0, 3
    for level in range(levels):
        maps = width * 2**level
        if level + 1 == levels:
            return total + 4 * coupling(channels, channels, maps, checkerboard=True)
        total += 3 * coupling(channels, channels, maps, checkerboard=True)
        total += 3 * coupling(2 * channels, 2 * channels, 2 * maps, checkerboard=False)
        channels *= 2
    return total


NICE = {
    ("nice-mnist", None): (784, [5] * 4, 1000),
    ("nice-mnist", "official"): (784, [5] * 4, 1000),
    ("nice-svhn", None): (3072, [4] * 4, 2000),
    ("nice-svhn", "official"): (3072, [3] * 4, 2000),
    ("nice-cifar10", None): (3072, [4] * 4, 2000),
    ("nice-cifar10", "official"): (3072, [1, 1, 3, 3, 2, 2, 1, 1], 2400),
}
GLOW = {
    "glow-cifar10": (3, 32, 512, True),
    "glow-imagenet32": (3, 48, 512, True),
    "glow-imagenet64": (4, 48, 512, True),
    "glow-lsun": (3, 48, 512, True),
    "glow-celebahq256": (6, 32, 512, False),
}
REALNVP = {
    ("realnvp-cifar10", None): (2, 64, 8),
    ("realnvp-imagenet32", None): (4, 32, 4),
    ("realnvp-celeba", None): (5, 32, 2),
    ("realnvp-lsun", "official"): (5, 32, 4),
}


@pytest.mark.parametrize(("name", "variant"), NICE)
def test_nice_has_the_published_number_of_parameters(build, name, variant):
    assert count(build(name, variant).model) == nice_parameters(*NICE[name, variant])


@pytest.mark.parametrize("name", GLOW)
def test_glow_has_the_published_number_of_parameters(build, name):
    model = build(name).model
    (top,) = (module for module in model.modules() if isinstance(module, LearnedPrior))
    assert count(model) - count(top) == glow_parameters(*GLOW[name])


def test_glow_on_cifar_10_has_44_million_parameters(build):
    assert round(count(build("glow-cifar10").model) / 1e6, 1) in (44.5, 44.6)


@pytest.mark.parametrize(("name", "variant"), REALNVP)
def test_realnvp_has_the_published_number_of_parameters(build, name, variant):
    assert count(build(name, variant).model) == realnvp_parameters(*REALNVP[name, variant])


@pytest.mark.parametrize("name", ["lia-ffhq", "lia-lsun"])
def test_lia_has_the_published_sizes(build, name):
    """genforce/lia: four steps of 262,912 weights; an encoder of ResNet blocks; StyleGAN2 has 11 layers."""
    model = build(name).model
    assert count(model.phi) == 4 * (256 * 512 + 512 + 512 * 256 + 256)
    widths, total = [64, 128, 256, 512, 1024, 1024], 27 * 64 + 64
    for before, after in itertools.pairwise(widths):
        middle = min(before, after)
        total += 9 * before * middle + middle + 9 * middle * after + after
        total += (before * after + after) * (before != after)
    assert count(model.encoder) == total + 16 * 1024 * 512 + 512
    assert model.spaces["w+"].shape == (11 * 512,)


@pytest.mark.long
def test_lia_steps_at_full_size(parser):
    """One step of every phase on two images of noise: what a machine with the data would do first."""
    path = FOLDER / "lia-ffhq.yaml"
    experiment = parser.instantiate(parser.parse_args([f"--config={path}"]))
    model, objective = experiment.model, experiment.objective
    objective.check(model, experiment.training.images)
    images = torch.randint(256, (2, 3, 128, 128), dtype=torch.uint8)
    batch = Batch(images, torch.zeros(2, dtype=torch.long), torch.arange(2))
    for phase in objective.phases(model, objective.parts(model)):
        loss, _ = phase.loss(batch, torch.Generator().manual_seed(0), 0)
        loss.backward()
        norms = [parameter.grad.norm() for parameter in phase.params if parameter.grad is not None]
        assert loss.isfinite() and norms and torch.stack(norms).isfinite().all(), phase.name


SIDES = {
    "lia-lsun": 128,
    "ffhq": 128,
    "mnist": 28,
    "imagenet64": 64,
    "celeba": 64,
    "lsun": 64,
    "celebahq256": 256,
}


# Every config and variant -------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_builds_at_full_size_without_its_data(build, name):
    experiment = build(name)
    model, data = experiment.model, experiment.data
    assert isinstance(model, LIA if name.startswith("lia") else LikelihoodModel)
    assert model.device.type == "meta"
    assert (model.image_shape, model.bins) == (data.image_shape, data.bins)
    assert experiment.folder == Path("checkpoints") / name
    side = SIDES.get(name, SIDES.get(name.split("-")[1], 32))
    assert model.image_shape[1:] == (side, side)
    assert model.bins == (32 if name == "glow-celebahq256" else 256)


@pytest.mark.parametrize(("name", "variant"), ALL_VARIANTS)
def test_variant_builds(build, name, variant):
    # Repetition was built in full above; a step and a level or two show whether a variant fits.
    short = {"glow": ["--model.depth=1"], "realnvp": ["--model.blocks=1", "--model.levels=2"]}
    less = [] if variant == "tiny" else short.get(name.split("-")[0], [])
    experiment = build(name, variant, *less)
    model, data = experiment.model, experiment.data
    assert (model.image_shape, model.bins) == (data.image_shape, data.bins)
    if variant == "tiny":
        assert count(model) < 2_000_000
        assert experiment.training.images == 2 * experiment.training.batch <= 400
    else:
        assert experiment.folder != Path("checkpoints") / name


@pytest.mark.parametrize(
    ("name", "variant"), [both for both in ALL_VARIANTS if both[1] in ("official", "tiny", "png")]
)
def test_train_py_applies_the_variant(parser, name, variant):
    path = FOLDER / f"{name}.yaml"
    try:
        _, applied = parse_experiment([f"--config={path}", f"--variant={variant}"])
    except SystemExit as stopped:
        pytest.fail(f"exit code {stopped.code}")
    written_out = parser.parse_args([f"--config={path}", *words(variants(path)[variant])])
    for part in ("folder", "data", "model", "training"):
        assert applied[part] == written_out[part]


def test_every_recipe_is_here():
    on = {
        "nice": ["cifar10", "mnist", "svhn"],
        "realnvp": ["celeba", "cifar10", "imagenet32", "imagenet64", "lsun"],
        "glow": ["celebahq256", "cifar10", "imagenet32", "imagenet64", "lsun"],
        "lia": ["ffhq", "lsun"],
    }
    assert sorted(NAMES) == sorted(f"{model}-{data}" for model, sets in on.items() for data in sets)
    for name in NAMES:
        assert "tiny" in variants(FOLDER / f"{name}.yaml")
        assert name.startswith(("glow", "lia")) or "official" in variants(FOLDER / f"{name}.yaml")


# What the headers say -----------------------------------------------------------------------------

PAPERS = {
    "nice": "arXiv 1410.8516",
    "realnvp": "arXiv 1605.08803",
    "glow": "arXiv 1807.03039",
    "lia": "arXiv 1906.08090",
}


def header(name: str) -> str:
    """The comment that a config opens with, its lines joined."""
    lines = (FOLDER / f"{name}.yaml").read_text().splitlines()
    return "\n".join(
        line[1:].strip() for line in lines[: next(i for i, x in enumerate(lines) if x[:1] != "#")]
    )


@pytest.mark.parametrize("name", NAMES)
def test_header_names_paper_command_figure_and_state(name):
    text = header(name)
    assert PAPERS[name.split("-")[0]] in text.split("\n")[0]
    assert re.search(
        rf"^(python|torchrun)[^#]*\strain\.py --config configs/paper/{name}\.yaml",
        text,
        re.M | re.S,
    )
    assert re.search(r"^Figure: .*(\d\.\d\d bits/dim|bits/dim.* \d\.\d\d|samples only)", text, re.M)
    assert re.search(r"^Hardware and time: ", text, re.M)
    assert re.search(r"^Not run here\.$", text, re.M)
    assert re.search(r"^How this file departs from the (recipe|released code)", text, re.M)
    for variant in set(variants(FOLDER / f"{name}.yaml")) - {"tiny"}:
        assert f"`--variant {variant}`" in text


@pytest.mark.parametrize(
    ("name", "nats", "size", "grey_levels"),
    # On [−1, 1] a bin is 2/256 wide: 128 of them on an interval of length 1.
    [
        ("nice-mnist", 1980.50, 784, 256),
        ("nice-svhn", 11496.55, 3072, 256),
        ("nice-cifar10", 5371.78, 3072, 128),
    ],
)
def test_nice_figures_are_converted(name, nats, size, grey_levels):
    bits = math.log2(grey_levels) - nats / (size * math.log(2))
    assert re.search(rf"{nats:.2f} nats.*{bits:.2f} bits/dim", header(name))


# Recipes in other units ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in NAMES if name.startswith(("nice", "realnvp"))])
def test_what_belongs_to_a_loss_in_nats_is_rescaled_to_bits_per_dim(build, name):
    experiment = build(name)
    per_nat = 1 / (math.prod(experiment.model.image_shape) * math.log(2))
    official = build(name, "official").training
    if name.startswith("nice"):
        assert experiment.training.epsilon == pytest.approx(1e-4 * per_nat, rel=5e-3)
        assert official.epsilon == pytest.approx(1e-2 * per_nat, rel=5e-3)
    else:
        assert experiment.training.epsilon == pytest.approx(1e-8 * per_nat, rel=5e-3)
        assert experiment.model.weight_penalty == 5e-5, "in nats, whatever the loss is logged in"
        assert experiment.training.clip is None
        assert official.clip == pytest.approx(100 * per_nat, rel=5e-3)


@pytest.mark.parametrize(("name", "gpus"), [(name, 40 if name.endswith("256") else 8) for name in GLOW])
def test_glow_counts_epochs_as_its_code_does(build, name, gpus):
    """An epoch is 50,000 images of 32×32; a GPU holds 64 of those, or as many pixels of others."""
    experiment = build(name)
    side = experiment.model.image_shape[1]
    steps_per_epoch = math.ceil(50_000 / (64 * gpus))
    batch = gpus * max(1, 64 * 32**2 // side**2)
    assert experiment.training.batch == batch
    assert experiment.training.betas[1] == pytest.approx(1 - 1 / steps_per_epoch, abs=5e-5)
    assert experiment.training.warmup == pytest.approx(10 * 50_000 / (64 * gpus) * batch, abs=1)


def test_a_misspelt_option_is_refused(parser, capsys):
    """The suite would notice a config that no longer fits the code."""
    with pytest.raises(SystemExit) as stopped:
        parser.parse_args([f"--config={CONFIGS[0]}", "--model.levles=3"])
    assert stopped.value.code == 2
    assert "levels" in capsys.readouterr().err
