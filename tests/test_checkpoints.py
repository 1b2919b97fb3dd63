"""The shipped models: loadable, small, and as exact as README says."""

import json
from pathlib import Path

import pytest

import flows
from flows.data.foreign import foreign_images
from flows.inversion.exact import invert

SHIPPED = sorted((Path(__file__).parents[1] / "checkpoints").glob("fashion-*"))


def test_three_are_shipped():
    assert [folder.name for folder in SHIPPED] == ["fashion-glow", "fashion-nice", "fashion-realnvp"]


@pytest.mark.parametrize("folder", SHIPPED, ids=lambda folder: folder.name)
def test_a_shipped_model_returns_every_foreign_image(folder):
    model = flows.load(folder)
    report = json.loads((folder / "report.json").read_text())
    assert report["fingerprint"] == model.fingerprint()
    assert (folder / "model.safetensors").stat().st_size <= 8 * 2**20
    for name, images in foreign_images(model.image_shape, model.bins).items():
        assert all(given.certified for given in invert(model, images).certificates), name
    assert f"{report['likelihood']['bits_per_dim']:.3f}" in (folder.parents[1] / "README.md").read_text()
