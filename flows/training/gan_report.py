"""Report of a GAN's run: distances to the test images, samples, curves, and a model card."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from flows import images as pixels
from flows.data.base import ImageData
from flows.files import read_yaml, to_json, write_atomically
from flows.models.base import LatentModel
from flows.models.load import load
from flows.page import as_fixed
from flows.stored import CARD_FILE
from flows.training.distances import IMAGES, halves_of, kid_line, kid_to, swd_to
from flows.training.figures import draw_lines
from flows.training.folder import REPORT_FILE, RUN_CONFIG
from flows.training.log import METRICS_FILE, read_metrics
from flows.training.report import facts_of, training_paragraph
from flows.training.validation import generate, sheet_of

SHOWN = 80
"""Number of samples on the sheet."""
CURVES = {
    "validation/swd_mean": "sliced Wasserstein distance × 1000",
    "validation/psnr": "PSNR of reconstructions, dB",
}


class Section(NamedTuple):
    """Additional section of a report, for one kind of GAN.

    Attributes:
        values: Entries of report.json.
        lines: Markdown lines of the model card.
        pictures: File name to uint8 (C, height, width).
    """

    values: dict[str, Any]
    lines: list[str]
    pictures: dict[str, Tensor]


def write_gan_report(
    folder: Path,
    data: ImageData,
    device: str = "cpu",
    more: Callable[[LatentModel, Tensor], Section] | None = None,
) -> dict[str, Any]:
    """Evaluate the exported generator of a run on the test split and write report, pictures and card.

    Args:
        folder: Folder of the run.
        data: Data set that the model was trained on.
        device: Torch device.
        more: Function from the model and uint8 test images to an additional section.

    Returns:
        Contents of report.json.
    """
    model = load(folder, device)
    metrics = read_metrics(folder / METRICS_FILE)
    test = data.split("test").first(2 * IMAGES)
    halves = halves_of(test.images)
    samples = generate(model, len(halves[0]), 1.0, seed=2, labels=halves_of(test.labels)[0])
    report: dict[str, Any] = {
        **facts_of(model, metrics, data),
        "sliced_wasserstein": swd_to(*halves, samples),
        "kid": kid_to(*halves, lambda _: samples),
    }
    # Few test images make small halves, or empty ones; the sheet and the section show something all the same.
    shown = samples
    if len(samples) < SHOWN:
        shown = torch.cat([samples, generate(model, SHOWN, 1.0, seed=2)[len(samples) :]])
    measured = halves[0] if len(halves[0]) else test.images
    section = Section({}, [], {}) if more is None else more(model, measured)
    report |= section.values
    for name, picture in section.pictures.items():
        write_atomically(folder / name, pixels.to_pillow(picture).save)
    write_atomically(folder / REPORT_FILE, lambda path: path.write_text(to_json(report)))
    write_atomically(folder / "samples.png", pixels.to_pillow(sheet_of(shown[:SHOWN], 10)).save)
    draw_lines(metrics, CURVES | kid_curves(metrics), folder / "curves.png")
    card = _card(report, read_yaml(folder / RUN_CONFIG), section.lines)
    write_atomically(folder / CARD_FILE, lambda path: path.write_text(card))
    name = report["model"]["model_type"]
    means = [report["sliced_wasserstein"][key]["mean"] for key in ("samples", "between test halves")]
    own, between = (as_fixed(mean, ".1f") for mean in means)
    print(f"{name}: sliced Wasserstein {own}, between two halves of the test images {between}")
    print(kid_line(report["kid"]))
    written = ", ".join([REPORT_FILE, "samples.png", "curves.png", *section.pictures, CARD_FILE])
    print(f"written to {folder}: {written}")
    return report


def kid_curves(metrics: list[dict[str, float]]) -> dict[str, str]:
    """Names of the columns of KID in the metrics of a run, with titles."""
    names = dict.fromkeys(name for line in metrics for name in line if name.startswith("validation/kid"))
    return {name: name.removeprefix("validation/").replace("kid_", "KID ") for name in names}


def _card(report: dict[str, Any], config: dict[str, Any], more: list[str]) -> str:
    name, data = report["model"]["model_type"], report["data"]
    swd = report["sliced_wasserstein"]
    lines = [
        "---",
        "library_name: flows",
        "pipeline_tag: unconditional-image-generation",
        f"tags: [gan, {name.lower()}]",
        "---",
        "",
        f"# {name} on {data['name']}",
        "",
        f"{report['parameters']:,} parameters including the critic, images {tuple(data['image_shape'])}. "
        f"Pixels: {data['transform']}.",
        "",
        "```python",
        "import flows",
        "",
        'model = flows.load("path/to/this/folder")',
        "```",
        "",
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
    """Distances by side of the image, and their mean: "15.1 at 32 pixels, 20.5 at 16, mean 17.8"."""
    sides = [side for side in distances if side != "mean"]
    at = [f"{distances[side]:.1f} at {side}{'' if i else ' pixels'}" for i, side in enumerate(sides)]
    return ", ".join([*at, f"mean {as_fixed(distances['mean'], '.1f')}"])
