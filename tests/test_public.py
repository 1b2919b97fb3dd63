"""The public face: lazy names, types, short reprs, and everything that people hand in at the doors."""

import importlib
import inspect
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import flows
from flows import images as pixels
from flows.bijections import AdditiveCoupling, AffineCoupling, Chain, Halves, TwoSided
from flows.core import lazy
from flows.models import Glow
from flows.testing import check_bijection

ROOT = Path(__file__).parents[1]
PACKAGES = [f"flows.{name}" for name in lazy.PACKAGES]


def python(code: str, *options: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, check=True, env=environment
    ).stdout


def test_importing_flows_imports_neither_torch_nor_numpy():
    loaded = python("import flows, sys; dir(flows); print(*sys.modules)").split()
    assert not {"torch", "numpy", "PIL", "yaml", "jsonargparse"} & set(loaded)


@pytest.mark.parametrize("package", ["flows", *PACKAGES])
def test_every_public_name_exists_and_is_documented(package):
    module = importlib.import_module(package)
    assert list(module.__all__) == sorted(module.__all__, key=str) and len(module.__all__) > 3
    assert set(module.__all__) <= set(dir(module))
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert inspect.getdoc(value), name
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        module.Nothing  # noqa: B018


@pytest.mark.parametrize("package", lazy.PACKAGES)
def test_no_public_name_hides_a_file(package):
    folder = ROOT / "flows" / package
    files = {path.stem for path in folder.glob("*.py")} | {path.name for path in folder.glob("*/")}
    assert not set(lazy.names_of(folder)) & files


@pytest.mark.parametrize("package", lazy.PACKAGES)
def test_type_checkers_see_the_same_names(package):
    folder = ROOT / "flows" / package
    written = (folder / "__init__.pyi").read_text()
    assert written == lazy.stub(folder), "run `python -m flows.core.lazy`"


@pytest.mark.long
def test_a_users_ten_lines_have_real_types(tmp_path):
    """mypy knows what names are: what is right passes, what is wrong is found."""
    right = """
import flows
from flows.inversion import Optimise
from flows.models import Glow
from flows.steering import Direction, shift
from torch import Tensor

model = flows.load("scenes-glow")
codes: flows.Codes = model.sample(4, temperature=0.7)
images: Tensor = model.decode_bytes(codes)
found = Optimise("z", steps=5).invert(model, images)
mine: Glow = Glow((3, 32, 32), levels=2)
names: list[str] = flows.list_models()
"""
    wrong = (
        "import flows\nflows.load(3).sample('many')\nflows.Codes(1, 2)\nfrom flows.models import Nothing\n"
    )
    (tmp_path / "right.py").write_text(right)
    (tmp_path / "wrong.py").write_text(wrong)
    (tmp_path / "mypy.ini").write_text(
        f"[mypy]\nmypy_path = {ROOT}\nignore_missing_imports = True\nfollow_imports = silent\n"
    )
    run = [sys.executable, "-m", "mypy", "--strict", "--config-file", "mypy.ini"]
    done = [
        subprocess.run([*run, name], cwd=tmp_path, capture_output=True, text=True)
        for name in ("right.py", "wrong.py")
    ]
    assert done[0].returncode == 0, done[0].stdout
    assert [line.split(": error: ")[0] for line in done[1].stdout.splitlines() if ": error: " in line] == [
        "wrong.py:2", "wrong.py:2", "wrong.py:3", "wrong.py:3", "wrong.py:4",
    ]  # fmt: skip


def test_the_repr_of_a_model_is_one_line():
    model = Glow((3, 8, 8), levels=2, depth=2, width=8)
    line = repr(model)
    assert "\n" not in line and len(line) < 200
    assert line.startswith("Glow(image_shape=(3, 8, 8), levels=2, depth=2, width=8): ")
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in line and "z (192, exact)" in line
    assert "AffineCoupling" in flows.core.hooks.tree(model)


# What people hand in ------------------------------------------------------------------------------


@pytest.fixture(name="model", scope="module")
def _model():
    torch.manual_seed(0)
    return Glow((3, 8, 8), levels=2, depth=1, width=8).eval()


def test_images_of_every_common_form_are_accepted(model):
    tensor = torch.randint(256, (2, 3, 8, 8), dtype=torch.uint8)
    array = tensor.movedim(1, -1).numpy()
    pictures = [pixels.to_pillow(image) for image in tensor]
    expected = model.encode_bytes(tensor).values
    for given in (array, tensor.numpy(), pictures, np.ascontiguousarray(array)[:, ::1]):
        assert torch.equal(model.encode_bytes(given).values, expected)
    for given in (tensor[0], array[0], pictures[0], pictures[:1]):
        torch.testing.assert_close(model.encode_bytes(given).values, expected[:1])
    bounds = [model.log_prob(each, seed=torch.Generator().manual_seed(0)) for each in (pictures, tensor)]
    assert torch.equal(*bounds)
    found = flows.inversion.Exact().invert(model, pictures)
    assert torch.equal(found.reconstruction, tensor)
    assert torch.equal(flows.inversion.invert_exactly(model, array).reconstruction, tensor)


def test_grey_arrays_need_no_channels():
    grey = np.arange(2 * 64, dtype=np.uint8).reshape(2, 8, 8)
    expected = torch.from_numpy(grey)[:, None]
    for given in (grey, grey[..., None], grey[:, None]):
        assert torch.equal(pixels.as_bytes(given, (1, 8, 8)), expected)
    assert torch.equal(pixels.as_bytes(grey[0], (1, 8, 8)), expected[:1])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (torch.rand(1, 3, 8, 8), "expected uint8 images"),
        (np.random.default_rng(0).random((1, 8, 8, 3)), "expected uint8 images"),
        (np.zeros((1, 9, 8, 3), np.uint8), r"expected images of shape \(batch, 3, 8, 8\)"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), r"expected images of shape \(batch, 3, 8, 8\)"),
        (
            pixels.to_pillow(torch.zeros(3, 9, 8, dtype=torch.uint8)),
            "expected pictures of 8×8 pixels, got 8×9",
        ),
    ],
)
def test_other_images_are_refused_with_a_sentence(model, given, sentence):
    with pytest.raises(flows.UserError, match=sentence):
        model.encode_bytes(given)


def test_paths_may_be_strings(model, tmp_path):
    from flows.data import Folder
    from flows.inversion import CodeFile, invert_exactly, load_codes, save_codes
    from flows.steering import Direction, load_directions, save_directions

    images = torch.randint(256, (12, 3, 8, 8), dtype=torch.uint8)
    exact = invert_exactly(model, images[:1])
    path = str(tmp_path / "codes.safetensors")
    save_codes(path, CodeFile(exact.codes, ["a"], exact.certificates), model)
    assert torch.equal(load_codes(path, model).codes.values, exact.codes.values)
    path = str(tmp_path / "directions.safetensors")
    vector = torch.nn.functional.normalize(torch.ones(192), dim=0)
    save_directions(
        path,
        [
            Direction(
                name="ones",
                vector=vector,
                bias=0.0,
                space="z",
                sigma=1.0,
                method="by hand",
                fingerprint=model.fingerprint(),
            )
        ],
    )
    assert load_directions(path, model)[0].name == "ones"
    for i, image in enumerate(images):
        pixels.to_pillow(image).save(tmp_path / f"{i}.png")
    assert Folder(str(tmp_path), size=8).image_shape == (3, 8, 8)
    model.save_pretrained(str(tmp_path / "model"))
    assert flows.load(str(tmp_path / "model")).fingerprint() == model.fingerprint()


def test_a_plain_module_is_a_conditioner():
    """Any nn.Module that takes the kept part: no context argument, no base class."""

    def make() -> Chain:
        return Chain(
            AdditiveCoupling(Halves(), nn.Linear(3, 3)),
            AffineCoupling(
                Halves(keep_first=False),
                nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 6)),
                TwoSided(),
            ),
        )

    check_bijection(make, shape=(6,))
    with pytest.raises(flows.UserError, match="Linear takes no context"):
        make()(torch.randn(2, 6), torch.randn(2, 1))


def test_bundled_models_have_names():
    names = flows.list_models()
    assert {"scenes-glow", "scenes-lia", "fashion-nice"} <= set(names) and "scenes-predictor" not in names
    config = json.loads((ROOT / "checkpoints/fashion-nice/config.json").read_text())
    assert flows.load("fashion-nice").fingerprint() == config["fingerprint"]
    with pytest.raises(flows.CheckpointError, match="Did you mean 'fashion-nice'"):
        flows.load("fashion-nise")


# Notebooks ----------------------------------------------------------------------------------------


def test_codes_and_semantic_models_have_a_short_repr(model):
    from flows.semantics import AttributePredictor

    assert repr(model.sample(3)) == "Codes(3 × 192, space='z', float32, cpu)"
    labelled = flows.Codes(torch.zeros(9, 4, dtype=torch.float64), "z", list(range(9)))
    assert repr(labelled) == "Codes(9 × 4, space='z', float64, cpu, labels 0, 1, 2, 3, 4 and 4 more)"
    attributes = [{"name": f"attribute {i}", "kind": "binary"} for i in range(40)]
    line = repr(AttributePredictor((3, 16, 16), attributes))
    assert "\n" not in line and len(line) < 200 and line.endswith(" parameters")


def test_generated_images_are_those_of_the_codes(model):
    images = model.generate(5, temperature=0.7, seed=3)
    assert torch.equal(images.pixels, model.decode_bytes(model.sample(5, temperature=0.7, seed=3)))
    assert images == flows.Images(images.pixels) and images != model.generate(5) and len(images) == 5
    assert repr(images) == "Images(5 × 3 × 8 × 8)"
    assert images[2] == images[2:3] == images[[2]] and images[-1] == images[4]
    assert np.array_equal(np.asarray(images), images.pixels.numpy())
    assert model.encode_bytes(images) == model.encode_bytes(images.pixels)


@pytest.mark.parametrize(("n", "columns"), [(1, 1), (5, 5), (8, 8), (9, 3), (70, 8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_notebook_shows_images_as_a_picture(n, columns, channels):
    """The pixels of the PNG, read by Pillow, are those of the images."""
    given = torch.randint(256, (n, channels, 8, 6), dtype=torch.uint8)
    content = flows.Images(given)._repr_png_()
    shown = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    zoom, gap = 12, 2
    for i in range(min(n, 64)):
        top, left = (gap + i // columns * (8 * zoom + gap), gap + i % columns * (6 * zoom + gap))
        block = shown[top : top + 8 * zoom, left : left + 6 * zoom]
        for corner in (block[::zoom, ::zoom], block[zoom - 1 :: zoom, zoom - 1 :: zoom]):
            assert (corner == given[i].expand(3, -1, -1).movedim(0, -1).numpy()).all()
    assert flows.Images(given[:0])._repr_png_() is None


def test_what_is_no_picture_is_refused():
    for wrong in (torch.rand(1, 3, 8, 8), torch.zeros(3, 8, 8, dtype=torch.uint8)):
        with pytest.raises(flows.UserError, match="expected"):
            flows.Images(wrong)
    with pytest.raises(flows.UserError, match="one or three channels"):
        flows.Images(torch.zeros(1, 2, 8, 8, dtype=torch.uint8))


def test_results_are_shown_as_tables():
    from flows.display.notebook import ShownInNotebooks
    from flows.display.table import Table
    from flows.dissection.report import Dissected
    from flows.inversion.report import Comparison
    from flows.steering.report import Scored

    class Found(ShownInNotebooks):
        notes = ["a <note>"]

        def tables(self):
            return [Table(["name", "dB"], [["<a>", "1.0"]])]

    shown = Found()._repr_html_()
    assert "<td>&lt;a&gt;</td><td class=n>1.0</td>" in shown and "<p>a &lt;note&gt;</p>" in shown
    assert all(issubclass(each, ShownInNotebooks) for each in (Comparison, Dissected, Scored))


def test_the_same_picture_has_the_same_likelihood(model):
    images = torch.randint(256, (6, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        first = model.log_prob(images)
        torch.rand(3)  # the state of torch's generator does not matter
        assert torch.equal(model.log_prob(images), first)
        torch.testing.assert_close(model.log_prob(images.flip(0)).flip(0), first)
        torch.testing.assert_close(model.log_prob(images[4]), first[4:5])
        assert not torch.equal(model.log_prob(images, seed=1), first)
        with pytest.raises(flows.UserError, match="seed: expected"):
            model.log_prob(images, seed=-1)


def test_the_density_at_bin_centres_is_that_of_one_point_of_the_bin(model):
    """The mean over bins of the density is what dequantisation samples: within a bin it varies little."""
    images = torch.randint(256, (4, 3, 8, 8), dtype=torch.uint8)
    with torch.no_grad():
        centres = model.log_density(pixels.to_unit(images)) - 192 * np.log(256)
        bounds = torch.stack([model.log_prob(images, seed=seed) for seed in range(40)])
    assert (centres - bounds.mean(0)).abs().max() < 5 * bounds.std(0).max()
