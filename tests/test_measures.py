"""Measures under their published definitions, beside the implementation of another library."""

import math

import numpy as np
import pytest
import torch

from flows.inversion.exact import decode_exactly, invert_exactly, margin
from flows.metrics.reconstruction import psnr, structural_similarity
from flows.metrics.roundtrip import round_trip
from flows.models.base import LikelihoodModel


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
