"""The shipped models: loadable, small, and as exact as README says."""

import json
import re
from pathlib import Path

import pytest

import flows
from flows.data.ood import ood_images
from flows.data.scenes.dataset import RENDERER
from flows.data.source import instantiate_data
from flows.inversion.encoder import Encoder
from flows.inversion.exact import invert_exactly
from flows.metrics.likelihood import LikelihoodReport
from flows.metrics.perceptual import EfficientNetLite0, embed, kernel_distance
from flows.metrics.reconstruction import psnr
from flows.metrics.roundtrip import RoundTripRow
from flows.models.lia import LIA
from flows.opening import bundled_model
from flows.reports import flow as flow_report
from flows.reports import gan as gan_report
from flows.reports import lia as lia_report
from flows.reports import semantics as semantics_report
from flows.reports.distances import kid_of
from flows.semantics.base import Measurement
from flows.semantics.load import load_semantic_model
from flows.storage.files import read_yaml
from flows.training.objectives.lia_measures import phi_figures
from flows.training.validation import generate

CHECKPOINTS = Path(__file__).parents[2] / "checkpoints"
SHIPPED = [
    CHECKPOINTS / name
    for name in re.findall(
        r"^!checkpoints/(.+)/$", (CHECKPOINTS.parent / ".gitignore").read_text(), re.MULTILINE
    )
]
SEMANTIC_MODELS = [folder for folder in SHIPPED if folder.name.endswith(("predictor", "segmenter"))]
FLOWS = [folder for folder in SHIPPED if folder.name.endswith(("glow", "nice", "realnvp"))]
GANS = [folder for folder in SHIPPED if folder not in FLOWS + SEMANTIC_MODELS]


def name_of(folder: Path) -> str:
    return folder.name


def report_of(folder: Path) -> dict:
    return json.loads((folder / "report.json").read_text())


def test_what_is_shipped():
    assert {folder.name for folder in SHIPPED} == {
        "digits-glow", "fashion-predictor", "fashion-glow", "fashion-nice", "fashion-realnvp",
        "scenes-biggan", "scenes-dcgan", "scenes-glow", "scenes-lia", "scenes-nice", "scenes-pggan",
        "scenes-predictor", "scenes-realnvp", "scenes-segmenter", "scenes-stylegan",
        "scenes64-glow", "scenes64-lia", "scenes64-predictor", "scenes64-segmenter",
    }  # fmt: skip


@pytest.mark.parametrize("folder", SHIPPED, ids=name_of)
def test_a_shipped_folder_is_small_whole_and_its_reports(folder):
    model = load_semantic_model(folder) if folder in SEMANTIC_MODELS else flows.load(folder)
    assert report_of(folder)["fingerprint"] == model.fingerprint()
    limit = 3 if folder in SEMANTIC_MODELS else 16 if folder.name == "scenes-nice" else 8
    assert (folder / "model.safetensors").stat().st_size <= limit * 2**20
    card = (folder / "README.md").read_text()
    for picture in re.findall(r"\]\((.+?\.png)\)", card):
        assert (folder / picture).is_file()
    if folder.name.startswith("scenes") and folder not in SEMANTIC_MODELS:
        kid = report_of(folder)["kid"]
        assert kid["network"] in card and kid_of(kid) > kid_of(kid, "halves")


def rebuilt_card(folder: Path) -> str:
    """Model card written again from the stored report, which may be older than its wording."""
    report, config = report_of(folder), read_yaml(folder / "config.yaml")
    report["data"]["transform"] = report["data"]["transform"].replace(
        f"drawn, renderer {RENDERER}", f"rendered (renderer {RENDERER})"
    )
    if folder in FLOWS:
        report.setdefault("kid", {"missing": "not computed"})
        rows = [RoundTripRow(**row) for row in report["roundtrip"]]
        return flow_report.model_card(report, rows, LikelihoodReport(**report["likelihood"]), config)
    if folder in GANS:
        more = lia_report.lia_lines(report) if "reconstruction" in report else []
        return gan_report.gan_card(report, config, more)
    summary = re.search(r"^On [\d,]+ test images: (.+)\.$", (folder / "README.md").read_text(), re.MULTILINE)
    measured = Measurement(report["test"], 0.0, summary[1])
    pictures = ["segmented.png"] if folder.name.endswith("segmenter") else []
    return semantics_report.semantics_card(load_semantic_model(folder), report, measured, config, pictures)


@pytest.mark.parametrize("folder", SHIPPED, ids=name_of)
def test_a_shipped_card_is_what_its_report_gives(folder):
    card = re.sub(r"^license: .+\n", "", (folder / "README.md").read_text(), flags=re.MULTILINE)
    assert rebuilt_card(folder).replace("KID: not computed.\n\n", "") == card


@pytest.mark.parametrize("folder", FLOWS, ids=name_of)
def test_a_shipped_flow_returns_every_ood_image(folder):
    model, report = flows.load(folder), report_of(folder)
    for name, images in ood_images(model.image_shape, model.bins).items():
        assert all(given.certified for given in invert_exactly(model, images).certificates), name
    page = (CHECKPOINTS.parent / "docs" / "results" / "checkpoints.md").read_text()
    (line,) = re.findall(rf"^\| `{folder.name}` \|.*$", page, re.MULTILINE)
    assert f"bits/dim {report['likelihood']['bits_per_dim']:.3f}" in line


def test_a_model_finds_the_shipped_predictor_of_its_size():
    for name, semantic in (("scenes-nice", "scenes-predictor"), ("scenes64-lia", "scenes64-predictor")):
        assert Path(bundled_model("predictor", flows.load(CHECKPOINTS / name))).name == semantic
    with pytest.raises(ValueError, match=r"--segmenter: none is included for fashion-mnist with images"):
        bundled_model("segmenter", flows.load(CHECKPOINTS / "fashion-nice"))


@pytest.mark.long
@pytest.mark.parametrize("folder", SEMANTIC_MODELS, ids=name_of)
def test_a_shipped_semantic_model_is_as_good_as_its_card_says(folder):
    """The images are rendered with a seed that no training used."""
    semantic = load_semantic_model(folder)
    fresh = dict(semantic.description["source"])
    if "Scenes" in fresh["class_path"]:
        fresh["init_args"] = {**fresh["init_args"], "test": 1000, "cache": None, "seed": 77}
    found = semantic.measure(instantiate_data(fresh).split("test"), None).values
    reported = report_of(folder)["test"]
    for name, figures in found.items():
        for figure in ("accuracy", "r2", "iou"):
            if figure in figures and figures.get("images", 1000) >= 200:
                assert figures[figure] == pytest.approx(reported[name][figure], abs=0.08), (name, figure)
    # Attributes that the renderer sets; the classes of Fashion-MNIST, as in the header of its config.
    least = 0.95 if "Scenes" in fresh["class_path"] else 0.915
    assert all(figures["accuracy"] >= least for figures in found.values() if "accuracy" in figures)


@pytest.mark.long
@pytest.mark.parametrize("folder", GANS, ids=name_of)
def test_a_shipped_gan_draws_what_its_card_says(folder):
    """KID of 500 images is coarse: within a third of the card's is room enough."""
    model, report = flows.load(folder), report_of(folder)
    real = instantiate_data(model.description["source"]).split("test").first(500).images
    generated = generate(model, 500, 1.0, seed=2)
    network = EfficientNetLite0()
    found = kernel_distance(embed(network, real), embed(network, generated))
    assert found == pytest.approx(kid_of(report["kid"]), rel=0.35)


@pytest.mark.parametrize("folder", [each for each in GANS if each.name.endswith("lia")], ids=name_of)
def test_shipped_lia_reconstructs_held_out_images(folder):
    model, report = flows.load(folder), report_of(folder)
    images = instantiate_data(model.description["source"]).split("test").first(400).images
    found = Encoder("w").invert(model, images)
    quality = psnr(images, found.reconstruction).median()
    assert float(quality) == pytest.approx(report["reconstruction"]["psnr_median"], abs=0.5)
    assert isinstance(model, LIA) and quality > (26 if model.image_shape[-1] == 32 else 25)
    phi = phi_figures(model, found.codes.values)
    assert phi["round_trip_fp32"] <= 1e-5 and phi["round_trip_fp64"] <= 1e-12
    assert phi["largest_log_det"] == 0  # additive couplings
