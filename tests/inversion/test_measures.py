"""Measures under their published definitions, beside the implementation of another library."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image

from flows import images as pixels
from flows.core.statistics import interval_of_median
from flows.errors import UserError
from flows.inversion.exact import decode_exactly, invert_exactly, margin
from flows.metrics.identity import Identity
from flows.metrics.inception import Inception, inception_distance
from flows.metrics.perceptual import LPIPS
from flows.metrics.protocols import protocol
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.metrics.roundtrip import round_trip
from flows.models.base import LikelihoodModel

ROOT = Path(__file__).parents[2]


def pairs(side, n=4, channels=3):
    random = np.random.default_rng(side)
    first = random.integers(0, 256, (n, channels, side, side))
    second = np.clip(first + random.normal(0, 40, first.shape), 0, 255)
    return tuple(torch.tensor(each.astype(np.uint8)) for each in (first, second))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [11, 12, 28, 64])
def test_structural_similarity_is_that_of_scikit_image(side, channels):
    metrics = pytest.importorskip("skimage.metrics")
    first, second = pairs(side, channels=channels)
    expected = [
        metrics.structural_similarity(
            a.numpy(), b.numpy(), channel_axis=0, data_range=255,
            gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
        )
        for a, b in zip(first, second, strict=True)
    ]  # fmt: skip
    assert structural_similarity(first, second) == pytest.approx(np.mean(expected), abs=1e-5)
    assert structural_similarity(first, first) == pytest.approx(1)


def test_structural_similarity_needs_one_whole_window():
    assert math.isnan(structural_similarity(*pairs(10)))


def test_psnr_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    first, second = pairs(16)
    expected = [
        metrics.peak_signal_noise_ratio(a.numpy(), b.numpy(), data_range=255)
        for a, b in zip(first, second, strict=True)
    ]
    assert psnr(first, second).tolist() == pytest.approx(expected, abs=1e-9)


# The certificate elsewhere ------------------------------------------------------------------------


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_the_margin_is_a_third_of_half_a_bin(bins):
    assert margin(bins) == pytest.approx(1 / (6 * bins))


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("threads", [1, 2])
def test_a_certified_code_decodes_at_other_batch_sizes_and_threads(size, threads):
    import flows
    from flows.data.ood import ood_images

    model = flows.load("fashion-glow")
    assert isinstance(model, LikelihoodModel)
    suite = ood_images(model.image_shape, model.bins)
    images = torch.cat([pictures[:4] for pictures in suite.values()])[:100]
    inversion = invert_exactly(model, images)
    precisions = [each.precision for each in inversion.certificates]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        for rows in torch.arange(len(images)).split(size):
            decoded = decode_exactly(model, inversion.codes[rows], [precisions[i] for i in rows.tolist()])
            assert torch.equal(decoded, images[rows])
    finally:
        torch.set_num_threads(before)


def test_an_error_above_the_margin_means_double_precision(monkeypatch):
    import flows
    from flows.inversion import exact

    model = flows.load("fashion-nice")
    images = torch.randint(256, (3, *model.image_shape), dtype=torch.uint8)

    def drifting(encoder, pictures, labels, per_level):
        trip = round_trip(encoder, pictures, labels, per_level=per_level)
        errors = torch.tensor([0.9, 1.1, 2.9]) * margin(model.bins)
        return trip if encoder is not model else type(trip)(**{**vars(trip), "error": errors})

    monkeypatch.setattr(exact, "round_trip", drifting)
    certificates = invert_exactly(model, images).certificates
    assert [each.precision for each in certificates] == ["fp32", "fp64", "fp64"]
    assert all(each.certified for each in certificates)


@pytest.mark.parametrize("threads", ["1", "2"])
def test_a_certified_code_decodes_in_a_fresh_process(threads, tmp_path):
    """The process has another number of threads than the one that encoded it, and the file alone."""
    from flows.data.ood import ood_images

    suite = ood_images((1, 32, 32), 256)
    names = ["cat", "uniform noise", "checkerboard of 4 px"]
    for i, name in enumerate(names):
        pixels.to_pillow(suite[name][0]).save(tmp_path / f"{i}.png")
    pictures = [str(tmp_path / f"{i}.png") for i in range(len(names))]
    codes, out = tmp_path / "codes.safetensors", tmp_path / "out"
    checkpoint = str(ROOT / "checkpoints/fashion-glow")
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
    for words in (
        ["encode", checkpoint, *pictures, "--output", str(codes)],
        ["decode", checkpoint, str(codes), "--output", str(out)],
    ):
        environment["OMP_NUM_THREADS"] = "1" if words[0] == "encode" else threads
        done = subprocess.run(
            [sys.executable, "-m", "flows", *words], capture_output=True, text=True, env=environment
        )
        assert done.returncode == 0, done.stderr
    for i, name in enumerate(names):
        with Image.open(out / f"{i}.png") as decoded:
            assert np.array_equal(np.asarray(decoded.convert("L")), suite[name][0, 0].numpy()), name


# Networks whose weights the user names ------------------------------------------------------------


@pytest.fixture(scope="module")
def random_inception(tmp_path_factory):
    """Weights of Inception at random, as small steps that keep features finite, in a file."""
    fidelity = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "inception.pth"

    class Random(fidelity.FeatureExtractorInceptionV3):
        def load_state_dict(self, state):
            return None

    torch.save({}, path)
    network = Random("inception-v3-compat", ["2048"], str(path))
    torch.save(network.state_dict(), path)
    return path


def test_fid_is_that_of_torchmetrics(random_inception):
    from torchmetrics.image.fid import FrechetInceptionDistance

    random = torch.Generator().manual_seed(1)
    first = torch.randint(256, (24, 3, 40, 40), dtype=torch.uint8, generator=random)
    second = (first.float() * 0.7).byte()
    network = Inception(random_inception)
    found = inception_distance(network(first), network(second))
    # torchmetrics resizes with antialiasing by default; FID was published without.
    expected = FrechetInceptionDistance(
        2048, feature_extractor_weights_path=str(random_inception), antialias=False
    ).set_dtype(torch.float64)
    expected.update(first, real=True)
    expected.update(second, real=False)
    assert found == pytest.approx(float(expected.compute()), rel=1e-3)
    assert inception_distance(network(first), network(first)) == pytest.approx(0, abs=1e-6)


def test_distances_of_samples_have_the_names_of_their_protocols(random_inception, tmp_path):
    import flows
    from flows.cli import main
    from flows.opening import data_of

    checkpoint = str(ROOT / "checkpoints/scenes-nice")
    words = ["distances", checkpoint, "--images", "12", "--inception", str(random_inception)]
    main([*words, "--temperature", "0.7", "--json", str(tmp_path / "d.json")])
    metrics = json.loads((tmp_path / "d.json").read_text())["metrics"]
    kinds = ("fid12_inception", "kid12_effnetlite0", "kid12_inception", "swd12")
    assert list(metrics) == sorted(f"{kind}_{end}" for kind in kinds for end in ("halves", "t0.7"))
    model = flows.load(checkpoint)
    real, network = data_of(model, None).first("test", 24).images, Inception(random_inception)
    samples = model.decode_bytes(model.sample(12, "z", 0, 0.7))
    for end, images in (("t0.7", samples), ("halves", real[12:])):
        expected = inception_distance(network(real[:12]), network(images))
        assert metrics[f"fid12_inception_{end}"] == pytest.approx(expected, rel=1e-3)


def test_other_weights_than_inceptions_are_refused(tmp_path):
    pytest.importorskip("torch_fidelity")
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    for path, message in ((tmp_path / "other.pth", "cannot be read as a"), (tmp_path / "no.pth", "missing")):
        with pytest.raises(UserError, match=message):
            Inception(path)


@pytest.mark.filterwarnings("ignore:The parameter 'pretrained':UserWarning")
@pytest.mark.filterwarnings("ignore:Arguments other than a weight enum:UserWarning")
@pytest.mark.parametrize("backbone", ["alex", "squeeze", "vgg"])
def test_lpips_is_that_of_the_lpips_package(backbone, tmp_path):
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    models = {"alex": "alexnet", "squeeze": "squeezenet1_1", "vgg": "vgg16"}
    features = getattr(torchvision.models, models[backbone])().features
    path = tmp_path / "backbone.pth"
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    expected = lpips.LPIPS(net=backbone, pnet_rand=True, verbose=False)
    own = {name: name.split(".", 1)[1] for name in expected.net.state_dict()}
    expected.net.load_state_dict({name: features.state_dict()[there] for name, there in own.items()})
    first, second = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = LPIPS(backbone, path).distance(first, second)
        value = expected(2 * first - 1, 2 * second - 1).flatten()
    torch.testing.assert_close(found, value, rtol=1e-4, atol=1e-7)
    assert found.min() > 0
    with pytest.raises(UserError, match="cannot be read as a file of torchvision's weights"):
        torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / "other.pth")
        LPIPS(backbone, tmp_path / "other.pth")


class Mean(torch.nn.Module):
    """Mean colours of the four quarters of a face."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(x, 2).flatten(1)


def export(network, path):
    shapes = ({0: torch.export.Dim.AUTO},)
    torch.export.save(torch.export.export(network, (torch.zeros(2, 3, 32, 32),), dynamic_shapes=shapes), path)


def test_identity_is_the_cosine_of_embeddings(tmp_path):
    path = tmp_path / "faces.pt2"
    export(Mean(), path)
    random = torch.Generator().manual_seed(3)
    first, second = torch.randint(256, (2, 5, 3, 32, 32), dtype=torch.uint8, generator=random)
    found = Identity(path, side=32).similarity(first, second)
    for i in range(5):
        a, b = (
            (2 * each[i].double().numpy() / 255 - 1).reshape(3, 2, 16, 2, 16).mean((2, 4)).ravel()
            for each in (first, second)
        )
        assert float(found[i]) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-4)
    (tmp_path / "text.pt2").write_text("no network")
    with pytest.raises(UserError, match="cannot be read as a program of torch.export"):
        Identity(tmp_path / "text.pt2")
    export(torch.nn.Identity(), path)
    with pytest.raises(UserError, match="expected embeddings"):
        Identity(path, side=32)


def test_names_of_figures_say_how_they_were_measured():
    assert protocol("kid", 2000, "effnetlite0", 1.0) == "kid2k_effnetlite0_t1"
    assert protocol("kid", 1500, "effnetlite0", 0.7) == "kid1500_effnetlite0_t0.7"
    assert protocol("fid", 50_000, "inception") == "fid50k_inception"
    assert protocol("lpips", network="vgg") == "lpips_vgg"


def test_the_interval_of_a_median_holds_it():
    """The ranks are those of scipy's binomial distribution; infinite values are values."""
    from scipy.stats import binom

    for n in (10, 11, 64, 333, 2000):
        values = torch.randperm(n, generator=torch.Generator().manual_seed(n)).double()
        low, high = interval_of_median(values)
        rank = int(binom.ppf(0.025, n, 0.5))
        rank = rank if binom.cdf(rank - 1, n, 0.5) <= 0.025 else rank - 1
        assert (low, high) == (rank - 1, n - rank)
        assert binom.cdf(n - rank, n, 0.5) - binom.cdf(rank - 1, n, 0.5) >= 0.95
    assert interval_of_median(torch.full((20,), torch.inf)) == (torch.inf, torch.inf)
    assert all(map(np.isnan, interval_of_median(torch.ones(9))))
