"""Images that are not square live the whole life of every family, and every verb reads and draws them."""

import math
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image
from rectangles import SHAPE, Slopes

import flows
from flows import images as pixels
from flows.cli import main
from flows.errors import UserError
from flows.inversion.exact import invert_exactly
from flows.metrics.distribution import sliced_wasserstein
from flows.models.biggan import BigGAN
from flows.models.dcgan import DCGAN
from flows.models.glow import Glow
from flows.models.lia import LIA
from flows.models.nice import NICE
from flows.models.pggan import PGGAN
from flows.models.realnvp import RealNVP
from flows.models.stylegan import StyleGAN
from flows.models.styles import first_size, nearest_size
from flows.networks.residual import Tower, UNet
from flows.semantics.base import json_attributes
from flows.semantics.load import load_semantic_model
from flows.semantics.predictor import AttributePredictor
from flows.semantics.segmenter import UNetSegmenter
from flows.studio import views
from flows.studio.session import mask_of_drawing
from flows.testing import Case, broken_laws
from flows.training.loop import fit, make_accelerator
from flows.training.objectives.adversarial import Adversarial
from flows.training.objectives.lia import LIATraining
from flows.training.objectives.likelihood import Likelihood
from flows.training.objectives.supervised import Supervised
from flows.training.settings import Training
from flows.training.validation import sample_sheet

WIDE, HIGH = (1, 4, 8), (1, 8, 4)
SLOW = ("nice", "nice, whitened", "realnvp")
"""Flows whose laws take some seconds."""


def lia(shape=SHAPE, **given):
    sizes = {"size": 8, "channels": (8, 8, 6), "encoder_channels": (6, 8, 8)}
    return LIA(shape, **sizes | given)


MAP = {"start": "map", "size": 48, "hidden": 8}
"""Codes of two channels at 4×6 positions."""

FLOWS = {
    "nice": lambda shape: NICE(shape, width=12, hidden_layers=1),
    "nice, whitened": lambda shape: NICE(shape, width=12, hidden_layers=1, whiten=0.1),
    "realnvp": lambda shape: RealNVP(shape, levels=2, width=4, blocks=1),
    "glow": lambda shape: Glow(shape, levels=2, depth=2, width=6),
    "glow, variational": lambda shape: Glow(shape, levels=1, depth=1, width=6, dequantisation="variational"),
}
GANS = {
    "dcgan": lambda shape: DCGAN(shape, size=6, channels=(8, 8)),
    "pggan": lambda shape: PGGAN(shape, size=6, channels=(8, 8, 6)),
    "stylegan": lambda shape: StyleGAN(shape, size=8, channels=(8, 8, 6)),
    "stylegan, linear": lambda shape: StyleGAN(shape, size=8, channels=(8, 8, 6), start="linear", depth=1),
    "biggan": lambda shape: BigGAN(
        shape, 2, size=6, width=4, channels=(8, 8, 6), attention=shape[1] // 2, deviation=True
    ),
}
LIAS = {
    "lia": lia,
    "lia, released": lambda shape: lia(shape, flavour="official"),
    "lia, map": lambda shape: lia(shape, **MAP, refinements=1),
    "lia, finer map": lambda shape: lia(
        shape, start="map", start_side=8, size=192, hidden=4, channels=(8, 6), critic_channels=(8, 8, 6),
        encoder_channels=(6, 8),
    ),
}  # fmt: skip


# Maps -----------------------------------------------------------------------------------------------


LAWS = [
    pytest.param(
        name, shape, marks=pytest.mark.long if name in SLOW or shape == HIGH else (), id=f"{name} {shape}"
    )
    for name in FLOWS
    for shape in (WIDE, HIGH)
]


@pytest.mark.parametrize("name, shape", LAWS)
def test_every_law_holds_for_images_that_are_not_square(name, shape):
    build = FLOWS[name]
    assert broken_laws(Case(lambda: build(shape).bijection, shape, interval=(0.02, 0.98))) == {}


def test_every_law_holds_for_codes_that_are_maps_of_a_rectangle():
    assert broken_laws(Case(lambda: lia(**MAP, coupling="affine", glow=True).phi, (48,))) == {}


@pytest.mark.parametrize("name", FLOWS)
def test_bytes_are_returned_and_levels_have_the_aspect_ratio(name):
    model = FLOWS[name](SHAPE).eval()
    images = Slopes().split("train").images[:32]
    model.initialise(images)
    found = invert_exactly(model, images[:8])
    assert torch.equal(found.reconstruction, images[:8]) and all(
        each.certified for each in found.certificates
    )
    for channels, height, width in model.spaces["z"].maps.values():
        assert channels > 0 and 3 * height == 2 * width


# Sizes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "size, start, first",
    [
        ((32, 32), 4, (4, 4)), ((48, 64), 4, (3, 4)), ((64, 48), 4, (4, 3)), ((48, 64), 8, (6, 8)),
        ((8, 12), 4, (4, 6)), ((80, 112), 4, (5, 7)), ((80, 112), 16, (10, 14)), ((96, 96), 4, (3, 3)),
    ],
)  # fmt: skip
def test_the_first_map_is_the_image_halved(size, start, first):
    assert first_size((3, *size), start=start) == first


def test_the_size_that_is_named_instead_is_accepted():
    refused = 0
    for start in (4, 8, 16):
        for height in range(1, 70):
            for width in range(1, 70, 3):
                try:
                    first_size((3, height, width), start=start)
                except UserError:
                    refused += 1
                    first_size((3, *nearest_size(height, width, start)), start=start)
    assert refused > 1000


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: DCGAN((3, 50, 70)), "70×50 pixels do not arise .* the nearest size that does is 64×48"),
        (lambda: DCGAN((3, 48, 64), channels=(8, 8)), "64×48 need 4 entries, for 4×3 to 32×24; got 2"),
        (lambda: lia(start="map", size=50), "a map of 6×4 needs a code size divisible by 24, got 50"),
        (lambda: BigGAN(SHAPE, 2, size=6, channels=(8, 8, 6), attention=12), r"one of \[8, 16\]; got 12"),
        (lambda: Glow((3, 16, 22), levels=2, depth=1, width=4), "cannot squeeze 11×8 pixels"),
        (lambda: UNet((3, 16, 22), [8, 8, 8], 2), "22×16 cannot be halved 2 times.*whose sides 4 divides"),
        (lambda: Tower(3, (4, 64), [8, 8, 8, 8], 8, 2), "64×4 cannot be halved 3 times"),
    ],
)
def test_a_size_that_does_not_fit_is_refused_with_the_way_out(make, message):
    with pytest.raises(UserError, match=message):
        make()


@pytest.mark.parametrize("shape", [SHAPE, (3, 12, 16), (1, 16, 12)], ids=str)
@pytest.mark.parametrize("name", GANS | LIAS)
def test_every_layer_of_a_generator_has_the_aspect_ratio(name, shape):
    """The sizes from 4×6, 3×4 and 4×3 on; the critic sees them, too."""
    model = (GANS | LIAS)[name](shape).eval()
    sizes = {layer.size for layer in model.layers().values()} - {(1, 1)}
    assert max(sizes) == shape[1:] and all(height * shape[2] == width * shape[1] for height, width in sizes)
    codes = model.sample(4)
    x = model.decode_codes(codes)
    scores = model.critic(pixels.signed(x), *([] if codes.labels is None else [codes.labels]))
    assert x.shape == (4, *shape) and scores.shape == (4,)


def test_a_position_of_a_code_is_the_same_position_of_the_image():
    """A change of the code's last column of the first row changes the image at the upper right only."""
    model = lia(**MAP).eval().double()
    synthesis = model.generator.synthesis
    with torch.no_grad():
        # The code is also the style of the first layer, by which it would change the whole image.
        for layer in (synthesis.layers[0].convolution, synthesis.to_colours[0]):
            layer.style.weight.zero_()
        codes = torch.randn(4, model.style_layers, 48, dtype=torch.float64)
        before = synthesis(codes)
        codes[:, 0].view(4, 2, 4, 6)[:, :, 0, 5] += 1
        change = (synthesis(codes) - before).abs().amax((0, 1))
    assert change.shape == SHAPE[1:] and change[0, -1] > 0
    assert not change[:, :10].any() and not change[14:].any()


# The whole life -------------------------------------------------------------------------------------

TRAINED = {name: (build, Likelihood()) for name, build in FLOWS.items()}
TRAINED |= {name: (build, Adversarial(score="swd")) for name, build in GANS.items()}
TRAINED["pggan"] = (GANS["pggan"], Adversarial(loss="wgan-gp", growing=(8, 8), score="swd"))
TRAINED |= {name: (build, LIATraining(stage1_images=16)) for name, build in LIAS.items()}
TRAINING = Training(
    images=32, batch=8, log_every=8, validate_every=32, validation_images=24, save_every=32, ema=0.0
)


@pytest.mark.parametrize("name", TRAINED)
def test_the_whole_life_of_a_model_on_rectangles(name, tmp_path):
    build, objective = TRAINED[name]
    model, data = build(SHAPE), Slopes()
    fit(model, data, TRAINING, tmp_path, objective, make_accelerator())
    loaded = flows.load(tmp_path)
    assert loaded.image_shape == SHAPE and loaded.fingerprint() == model.fingerprint()
    sheet = sample_sheet(loaded, temperatures=[1.0])
    assert sheet.shape == (3, 3 * 16 + 2 + 2, 10 * (3 * 24 + 2) + 2)
    images = data.split("test").images[:4]
    labels = loaded.classes_in_turn(4)
    codes = loaded.sample(4, labels=labels)
    assert loaded.decode_bytes(codes).shape == (4, *SHAPE)
    if loaded.search_space in loaded.spaces and loaded.spaces[loaded.search_space].encodes:
        codes = loaded.encode_bytes(images, labels=labels)
        back = loaded.decode_bytes(codes)
        assert not loaded.is_exact or torch.equal(back, images)


def semantic_model(kind):
    data = Slopes()
    if kind == "segmenter":
        return UNetSegmenter(SHAPE, list(data.mask_classes), channels=[8, 8])
    return AttributePredictor(SHAPE, json_attributes(data.all_attributes()), channels=[16, 16, 16], hidden=32)


@pytest.mark.parametrize("kind", ["predictor", "segmenter"])
def test_the_whole_life_of_a_semantic_model_on_rectangles(kind, tmp_path):
    model, split = semantic_model(kind), Slopes().split("test")
    fit(model, Slopes(), TRAINING, tmp_path, Supervised(), make_accelerator())
    loaded = load_semantic_model(tmp_path)
    x = pixels.to_unit(split.images)
    if kind == "segmenter":
        assert loaded.segment(x).shape == (24, 2, *SHAPE[1:])
        assert loaded.pictures(split)["segmented.png"].shape == (
            3,
            6 * (2 * 16 + 2) + 2,
            10 * (2 * 24 + 2) + 2,
        )
    else:
        assert loaded.predict(x).shape == (24, 2)


@pytest.mark.long
@pytest.mark.parametrize("kind", ["predictor", "segmenter"])
def test_semantic_models_learn_where_the_rectangle_is(kind, tmp_path):
    """The positions across and down, of which a transposed picture would have the other."""
    model, split = semantic_model(kind), Slopes().split("test")
    training = Training(
        images=4000, batch=16, lr=5e-3, log_every=4000, validate_every=4000, save_every=4000, ema=0.0
    )
    fit(model, Slopes(), training, tmp_path, Supervised(), make_accelerator())
    measured = load_semantic_model(tmp_path).measure(split, None).values
    if kind == "predictor":
        assert min(figures["r2"] for figures in measured.values()) > 0.9
    else:
        assert measured["rectangle"]["iou"] > 0.9


def test_scales_of_a_distance_are_named_by_width_and_height():
    images = Slopes().split("train").images
    distances = sliced_wasserstein(images[:48], images[48:96])
    assert list(distances) == ["24×16", "12×8", "mean"] and all(map(math.isfinite, distances.values()))
    square = sliced_wasserstein(images[:48, :, :, :16], images[48:96, :, :, :16])
    assert list(square) == ["16", "8", "mean"]


# Verbs ----------------------------------------------------------------------------------------------

OURS = ["--data", "rectangles.Slopes", "--allow_import", "rectangles"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Models of every kind, trained for two steps, and a picture that is larger than they are."""
    root = tmp_path_factory.mktemp("rectangles")
    torch.manual_seed(0)
    data = Slopes()
    models = {
        "glow": Glow(SHAPE, levels=2, depth=1, width=8),
        "lia": LIAS["lia, map"](SHAPE),
        "dcgan": GANS["dcgan"](SHAPE),
        "predictor": semantic_model("predictor"),
        "segmenter": semantic_model("segmenter"),
    }
    models["glow"].initialise(data.split("train").images[:32])
    with torch.no_grad():
        models["predictor"].network.head.bias[-2:] = 99.0  # it sees both attributes in every image
    for name, model in models.items():
        model.description = {**asdict(data.description()), "name": name}
        model.save_pretrained(root / name)
    for i, image in enumerate(data.split("test").images[:2]):
        pixels.to_pillow(image).save(root / f"{i}.png")
    pixels.to_pillow(image).resize((240, 200), Image.Resampling.NEAREST).save(root / "large.png")
    return root


@pytest.fixture
def run(folder, monkeypatch, capsys):
    """Function that runs a verb in the folder of the models; returns what it printed."""
    monkeypatch.chdir(folder)

    def run_verb(*words):
        capsys.readouterr()
        main([str(word) for word in words])
        return capsys.readouterr().out

    return run_verb


@pytest.fixture
def refused(run, capsys):
    """Function that runs a verb that ends with an error of the user; returns its message."""

    def message_of(*words):
        with pytest.raises(SystemExit) as ended:
            run(*words)
        assert ended.value.code == 2
        return capsys.readouterr().err

    return message_of


def picture(path):
    with Image.open(path) as opened:
        return pixels.from_pillow(opened, 3)


def test_pictures_become_codes_and_the_same_pictures(run, refused, tmp_path):
    codes = tmp_path / "codes.safetensors"
    printed = run("encode", "glow", "0.png", "1.png", "large.png", "--resize", "true", "--output", codes)
    assert printed.count("bit-exact") == 3 and "(the middle 240×160 of 240×200, as 24×16)" in printed
    run("decode", "glow", codes, "--output", tmp_path / "back")
    back = [picture(path) for path in sorted((tmp_path / "back").iterdir())]
    for i in range(2):
        assert torch.equal(back[i], picture(f"{i}.png"))
    run("interpolate", "glow", "0.png", "1.png", "--steps", "3", "--output", tmp_path / "way")
    way = [picture(path) for path in sorted((tmp_path / "way").iterdir())]
    assert torch.equal(way[0], back[0]) and torch.equal(way[-1], back[1])
    message = refused("encode", "glow", "large.png", "--output", codes)
    assert "has 240×200 pixels, the model expects 24×16" in message


@pytest.mark.long
def test_a_comparison_and_its_records(run, tmp_path):
    out = tmp_path / "out"
    run(
        *("compare", "--models", "glow", "lia", "dcgan", "--inverters", "exact", "encoder", "optimise"),
        *("--images", "test:2", "upside-down:2", "flipped:1", "ood", "--steps", "1", "--perceptual", "none"),
        *("--edits", "false", "--out", out, *OURS),
    )
    rendered = tmp_path / "rendered"
    printed = run(
        *("render", out / "records/glow-exact-upside-down.safetensors", "--checkpoint", "glow"),
        *("--output", rendered),
    )
    assert "identical to the recorded bytes" in printed
    expected = Slopes().split("test").images[:2].flip(-2)
    assert torch.equal(torch.stack([picture(path) for path in sorted(rendered.iterdir())]), expected)


def test_a_rotation_that_changes_the_size_is_refused(refused):
    message = refused("compare", "--models", "glow", "--inverters", "exact", "--images", "rotated:2", *OURS)
    assert "images of 24×16 pixels have another size when rotated" in message and "upside-down:N" in message


def test_a_stroke_of_the_verb_changes_its_rectangle_only(run, tmp_path):
    out = tmp_path / "painted"
    run(
        *("paint", "glow", "--images", "0.png", "--strokes", "draw rectangle 18 0 24 4"),
        *("--segmenter", "segmenter", "--exemplars", "20", "--output", out),
    )
    (path,) = out.iterdir()
    changed = (picture(path) != picture("0.png")).any(0)
    assert changed[:4, 18:].any()
    assert not changed[:, :12].any() and not changed[10:].any()


@pytest.mark.parametrize("shape", [(16, 24), (24, 16), (16, 16)])
def test_a_stroke_on_the_page_is_where_it_was_drawn(shape):
    """The canvas is a square of 384 pixels, in whose middle the picture is as large as fits."""
    height, width = shape
    zoom = views.SIDE // max(shape)
    top, left = (views.SIDE - zoom * height) // 2, (views.SIDE - zoom * width) // 2
    layer = np.zeros((views.SIDE, views.SIDE, 4), dtype=np.uint8)
    layer[top + 2 * zoom : top + 4 * zoom, left + 10 * zoom : left + 13 * zoom, 3] = 255
    expected = torch.zeros(shape, dtype=torch.bool)
    expected[2:4, 10:13] = True
    assert torch.equal(mask_of_drawing({"layers": [layer]}, shape), expected)


RUNS = {
    "sample": ["sample", "dcgan", "--n", "3", "--zoom", "1", "--output", "OUT.png"],
    "roundtrip": ["roundtrip", "glow", "--images", "4", "--images_fp64", "2", *OURS],
    "evaluate": ["evaluate", "glow", "--images", "4", "--neighbours", "2", "--output", "OUT", *OURS],
    "distances": ["distances", "dcgan", "--images", "12", *OURS],
    "steer find": [
        "steer", "find", "glow", "--method", "Displacement", "--scores", "shift x", "rotate 2d", "--source",
        "images", "--n", "20", "--output", "OUT.safetensors", *OURS,
    ],
    "dissect": ["dissect", "dcgan", "--n", "20", "--segmenter", "segmenter", "--out", "OUT", *OURS],
    "omissions": [
        "omissions", "glow", "--n", "20", "--images", "4", "--segmenter", "segmenter", "--out", "OUT", *OURS,
    ],
    "atlas": [
        "atlas", "lia", "--n", "120", "--predictor", "predictor", "--segmenter", "segmenter", "--out", "OUT",
        *OURS,
    ],
}  # fmt: skip
"""Arguments of verbs that read, measure or draw rectangles, OUT for the output."""


@pytest.mark.parametrize(
    "verb",
    [
        pytest.param(verb, marks=pytest.mark.long if verb in ("atlas", "dissect", "roundtrip") else ())
        for verb in RUNS
    ],
)
def test_a_verb_takes_models_of_rectangles(verb, run, tmp_path):
    run(*(word.replace("OUT", str(tmp_path / "out")) for word in RUNS[verb]))
    for path in tmp_path.rglob("*.png"):
        assert picture(path).shape[0] == 3
    if verb == "sample":
        assert picture(tmp_path / "out.png").shape[1:] == (2 * 18 + 2, 2 * 26 + 2)
