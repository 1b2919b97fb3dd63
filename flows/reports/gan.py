"""Report of a GAN's run: distances to the test images, samples, curves, and a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows import images as pixels
from flows.data.base import ImageData
from flows.display.drawing import save_picture
from flows.display.page import as_fixed, as_text
from flows.models.base import LatentModel
from flows.models.lia import LIA
from flows.reports.card import LOADER, card_head, facts_of, loader_of, test_note, training_paragraph
from flows.reports.distances import IMAGES, halves_of, kid_line, kid_to, swd_to
from flows.reports.figures import draw_lines
from flows.reports.lia import lia_section
from flows.reports.section import RunReport, Section
from flows.steering.base import DIRECTIONS_FILE
from flows.storage.files import to_json, write_text
from flows.storage.stored import CARD_FILE
from flows.storage.trained import METRICS_FILE, REPORT_FILE
from flows.training.folder import read_receipt
from flows.training.log import read_metrics
from flows.training.validation import generate

SHOWN = 80
"""Number of samples on the sheet."""
CURVES = {
    "validation/swd_mean": "sliced Wasserstein distance × 1000",
    "validation/psnr": "PSNR of reconstructions, dB",
}


def write_gan_report(
    model: LatentModel, folder: Path, data: ImageData, learned: Mapping[str, Any] | None = None
) -> RunReport:
    """Evaluate the exported generator of a run on the test split and write report, pictures and card.

    Args:
        model: Exported model.
        folder: Folder of the run.
        data: Data set that the model was trained on.
        learned: Figures of what the objective learned besides the model (`Objective.finish`).
    """
    metrics = read_metrics(folder / METRICS_FILE)
    test = data.split("test").first(2 * IMAGES)
    halves = halves_of(test.images)
    samples = generate(model, len(halves[0]), 1.0, seed=2, labels=halves_of(test.labels)[0])
    report: dict[str, Any] = {
        **facts_of(model, metrics, data, folder),
        "sliced_wasserstein": swd_to(*halves, samples),
        "kid": kid_to(*halves, lambda _: samples),
    }
    # Few test images make small halves, or empty ones; the sheet and the section show something all the same.
    shown = samples
    if len(samples) < SHOWN:
        shown = torch.cat([samples, generate(model, SHOWN, 1.0, seed=2)[len(samples) :]])
    measured = halves[0] if len(halves[0]) else test.images
    section = section_of(model, measured, learned or {})
    report |= section.values
    for name, picture in section.pictures.items():
        save_picture(picture, folder / name)
    write_text(folder / REPORT_FILE, to_json(report))
    save_picture(pixels.sheet(shown[:SHOWN], 10), folder / "samples.png")
    draw_lines(metrics, CURVES | kid_curves(metrics), folder / "curves.png")
    card = gan_card(report, read_receipt(folder), section.lines, loader_of(model))
    write_text(folder / CARD_FILE, card)
    name = report["model"]["model_type"]
    means = [report["sliced_wasserstein"][key]["mean"] for key in ("samples", "between test halves")]
    own, between = (as_fixed(mean, ".1f") for mean in means)
    distance = f"{name}: sliced Wasserstein {own}, between two halves of the test images {between}"
    written = ", ".join([REPORT_FILE, "samples.png", "curves.png", *section.pictures, CARD_FILE])
    lines = [*test_note(report), distance, kid_line(report["kid"]), f"written to {folder}: {written}"]
    return RunReport(report, lines)


def section_of(model: LatentModel, images: Tensor, learned: Mapping[str, Any]) -> Section:
    """Additional section of a model's report, measured on uint8 test images (n, C, H, W)."""
    own = lia_section(model, images) if isinstance(model, LIA) else Section({}, [], {})
    return Section({**own.values, **learned}, [*own.lines, *walk_lines(learned)], own.pictures)


def walk_lines(learned: Mapping[str, Any]) -> list[str]:
    """Lines of a model card on walks that were trained with the generator, if there are any."""
    if not {"walks", "walks_in", "walks_learned"} <= learned.keys():
        return []
    shares = ", ".join(f"{name} {as_text(value)}" for name, value in learned["walks"].items())
    how = "learned with the generator" if learned["walks_learned"] else "found afterwards"
    where = f"its walk in {learned['walks_in']}, {how} ({DIRECTIONS_FILE})"
    return [f"Share of each edit that is explained by {where}: {shares}.", ""]


def kid_curves(metrics: list[dict[str, float]]) -> dict[str, str]:
    """Names of the columns of KID in the metrics of a run, with titles."""
    names = dict.fromkeys(name for line in metrics for name in line if name.startswith("validation/kid"))
    return {name: name.removeprefix("validation/").replace("kid_", "KID ") for name in names}


def gan_card(
    report: dict[str, Any], config: dict[str, Any], more: list[str], loader: tuple[str, str] = LOADER
) -> str:
    """Model card of a GAN.

    Args:
        report: Contents of report.json.
        config: Contents of config.yaml; empty if the run has none.
        more: Lines of an additional section.
        loader: Lines of Python that load the model.
    """
    data, swd = report["data"], report["sliced_wasserstein"]
    size = (
        f"{report['parameters']:,} parameters including the critic, images {tuple(data['image_shape'])}. "
        f"Pixels: {data['transform']}."
    )
    lines = [
        *card_head(report, "gan", size, loader),
        "![samples](samples.png)",
        "",
        "Uncurated samples.",
        "",
        f"Sliced Wasserstein distance (× 1000) to {swd['images']:,} test images by scale: "
        f"{_by_scale(swd['samples'])}. Between two halves of the test images: "
        f"{_by_scale(swd['between test halves'])}.",
        "",
        kid_line(report["kid"]),
        "",
        *more,
        "![curves](curves.png)",
        "",
        *training_paragraph(report, config),
    ]
    return "\n".join(lines)


def _by_scale(distances: dict[str, float]) -> str:
    """Distances by size of the image, and their mean: "15.1 at 32 pixels, 20.5 at 16, mean 17.8"."""
    sides = [side for side in distances if side != "mean"]
    at = [f"{distances[side]:.1f} at {side}{'' if i else ' pixels'}" for i, side in enumerate(sides)]
    return ", ".join([*at, f"mean {as_fixed(distances['mean'], '.1f')}"])
