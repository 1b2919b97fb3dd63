"""Report of a flow's run: test bits/dim, round trip, samples, curves, and a model card."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from flows.data.base import ImageData, Split
from flows.data.ood import ood_images
from flows.display.drawing import save_picture
from flows.display.page import as_fixed
from flows.display.table import Table
from flows.errors import NonFinite
from flows.metrics.likelihood import LikelihoodReport, evaluate_likelihood, labels_if_conditional
from flows.metrics.roundtrip import Precision, RoundTripRow, round_trip_table
from flows.models.base import LikelihoodModel
from flows.reports.card import LOADER, best_at, card_head, facts_of, loader_of, test_note, training_paragraph
from flows.reports.distances import IMAGES, halves_of, kid_line, kid_to
from flows.reports.figures import draw_curves, draw_round_trip
from flows.reports.section import RunReport
from flows.storage.files import to_json, write_text
from flows.storage.stored import CARD_FILE
from flows.storage.trained import METRICS_FILE, REPORT_FILE
from flows.training.folder import read_receipt
from flows.training.log import read_metrics
from flows.training.validation import TEMPERATURES, generate, sample_sheet

DOUBLE_PRECISION_IMAGES = 64
"""Maximum number of images per group in the fp64 round trip; fp64 convolutions are slow on CPUs."""

KID_TEMPERATURES = (0.7, 1.0)

ImageGroups = dict[str, tuple[Tensor, Tensor | None]]
"""Name of a group to (uint8 images, labels or None)."""


def round_trip_groups(model: LikelihoodModel, data: ImageData, images: int | None) -> ImageGroups:
    """Test images and the suite of out-of-distribution images, as arguments of `round_trip_table`."""
    test = data.split("test").first(images)
    suite = ood_images(model.image_shape, model.bins, test.images[:16])
    groups: ImageGroups = {"test": (test.images, labels_if_conditional(model, test))}
    for name, pictures in suite.items():
        groups[name] = (pictures, None)  # no class of the data set; the flow infers one if it needs it
    return groups


def write_flow_report(
    model: LikelihoodModel, folder: Path, data: ImageData, learned: Mapping[str, Any] | None = None
) -> RunReport:
    """Evaluate the exported model of a run on the test split, once, and write report, pictures and card.

    Args:
        model: Exported model.
        folder: Folder of the run.
        data: Data set that the model was trained on.
        learned: Figures of what the objective learned besides the model (`Objective.finish`).
    """
    metrics = read_metrics(folder / METRICS_FILE)
    facts = facts_of(model, metrics, data, folder)
    facts["training"]["best_images"] = best_evaluation(metrics, "validation/bits_per_dim")
    likelihood, reason = known_likelihood(model, data.split("test"), None)
    groups = round_trip_groups(model, data, None)
    limits: dict[Precision, int | None] = {"fp32": None, "fp64": DOUBLE_PRECISION_IMAGES}
    rows = list(round_trip_table(model, groups, limits))
    report = {
        **facts,
        **(learned or {}),
        "likelihood": asdict(likelihood),
        "kid": sample_distance(model, data),
        "roundtrip": [asdict(row) for row in rows],
    }
    unknown = {"bits_per_dim": reason, "standard_error": reason or "one test image"}
    write_text(folder / REPORT_FILE, to_json(report, unknown))
    draw_curves(metrics, model.bins, folder / "curves.png")
    suite = {name: pictures for name, (pictures, _) in groups.items()}
    draw_round_trip(model, suite, folder / "roundtrip.png")
    save_picture(sample_sheet(model), folder / "samples.png")
    card = model_card(report, rows, likelihood, read_receipt(folder), reason, loader_of(model))
    write_text(folder / CARD_FILE, card)
    notes = [verdict(rows), f"written to {folder}: {WRITTEN}"]
    notes += [f"bits/dim are unknown: {reason}"] if reason else []
    summary = [*test_note(report), *summary_of(report, likelihood)]
    return RunReport(report, summary, [round_trip_figures(rows)], notes)


def best_evaluation(metrics: list[dict[str, float]], name: str) -> int | None:
    """Number of images shown at the evaluation with the lowest value of a name; None without a finite one."""
    found = [(line[name], int(line["images"])) for line in metrics if math.isfinite(line.get(name, math.nan))]
    return min(found)[1] if found else None


def known_likelihood(
    model: LikelihoodModel, split: Split, images: int | None
) -> tuple[LikelihoodReport, str]:
    """Likelihood of a split, and the reason why it is unknown (NaN), if an image has none that is finite."""
    try:
        return evaluate_likelihood(model, split, images), ""
    except NonFinite as error:
        n = len(split) if images is None else min(images, len(split))
        return LikelihoodReport(n, math.nan, math.nan, {}), str(error)


def likelihood_lines(likelihood: LikelihoodReport, reason: str) -> list[str]:
    """Lines of a model card on bits/dim, or why they are unknown."""
    if reason:
        return [f"bits/dim of the {likelihood.images:,} test images are unknown: {reason}.", ""]
    terms = ", ".join(f"{term} {value:.4f}" for term, value in likelihood.terms.items())
    return [
        f"**{likelihood.bits_per_dim:.4f} bits/dim** (± {as_fixed(likelihood.standard_error)}, standard "
        f"error) on {likelihood.images:,} test images, an upper bound by dequantisation. Terms in bits/dim: "
        f"{terms}.",
        "",
    ]


def sample_distance(model: LikelihoodModel, data: ImageData) -> dict[str, Any]:
    """KID of samples at every temperature of KID_TEMPERATURES; the result of `kid_to`."""
    halves = halves_of(data.split("test").first(2 * IMAGES).images)
    return kid_to(*halves, lambda t: generate(model, len(halves[0]), t, seed=2), KID_TEMPERATURES)


WRITTEN = "report.json, samples.png, curves.png, roundtrip.png, README.md"


def summary_of(report: dict[str, Any], likelihood: LikelihoodReport) -> list[str]:
    """Sentences with the likelihood of a flow and its terms."""
    line = (
        f"\n{report['model']['model_type']} on {report['data']['name']}: "
        f"{as_fixed(likelihood.bits_per_dim)} bits/dim ± {as_fixed(likelihood.standard_error)} on "
        f"{likelihood.images:,} test images; {report['parameters']:,} parameters, "
        f"{report['training']['images']:,} images shown in {report['training']['seconds']:.0f} s"
    )
    terms = " + ".join(f"{name} {value:.4f}" for name, value in likelihood.terms.items())
    return [line, terms] if terms else [line]


def round_trip_figures(
    rows: list[RoundTripRow], figures: Sequence[str] = ("largest", "median", "exact")
) -> Table:
    """One row per group of images, with the columns of all precisions side by side.

    `n` is the number of images in the first precision; later precisions may use only the first few of them.
    """
    precisions = list(dict.fromkeys(row.precision for row in rows))
    by_group: dict[str, dict[str, RoundTripRow]] = {}
    for row in rows:
        by_group.setdefault(row.group, {})[row.precision] = row
    columns = [f"{precision} {figure}" for precision in precisions for figure in figures]
    lines = []
    for group, by_precision in by_group.items():
        line = [group, f"{by_precision[precisions[0]].images:,}"]
        for precision in precisions:
            row = by_precision[precision]
            line += [
                f"{row.max_error:.0e}" if row.finite else "not finite",
                f"{row.median_error:.0e}",
                f"{100 * row.bit_exact:.4g} %",
            ]
        lines.append(line)
    return Table(["images", "n", *columns], lines)


def verdict(rows: list[RoundTripRow]) -> str:
    """Sentence with the number of bit-exact reconstructions in fp32, and the groups with others."""
    single = [row for row in rows if row.precision == "fp32"]
    total = sum(row.images for row in single)
    exact = sum(round(row.bit_exact * row.images) for row in single)
    missed = [row.group for row in single if row.bit_exact < 1]
    where = f"; exceptions in: {', '.join(missed)}" if missed else ""
    return f"{exact:,} of {total:,} images are reconstructed bit for bit in fp32{where}"


def model_card(
    report: dict[str, Any],
    rows: list[RoundTripRow],
    likelihood: LikelihoodReport,
    config: dict[str, Any],
    reason: str = "",
    loader: tuple[str, str] = LOADER,
) -> str:
    """Model card (README.md) of an exported flow in the hub's format.

    Args:
        report: Contents of report.json.
        rows: Rows of the round trip.
        likelihood: Likelihood of the test images.
        config: Contents of config.yaml; empty if the run has none.
        reason: Reason why the likelihood is unknown; see `known_likelihood`.
        loader: Lines of Python that load the model.
    """
    data = report["data"]
    sentences = (
        f"{report['parameters']:,} parameters, images {tuple(data['image_shape'])}, {data['bins']} grey "
        f"levels.\nPixels: {data['transform']}."
    )
    lines = [
        *card_head(report, "normalizing-flow", sentences, loader),
        *likelihood_lines(likelihood, reason),
        "![samples](samples.png)",
        "",
        "Samples from the same codes at temperatures "
        f"{', '.join(f'{temperature:g}' for temperature in TEMPERATURES)}, from top to bottom.",
        "",
        kid_line(report["kid"]),
        "",
        "![curves](curves.png)",
        "",
        *round_trip_section(rows, data["bins"]),
        *training_paragraph(report, config, kept_sentence(report, config)),
        *LIMITS,
    ]
    return "\n".join(lines)


def round_trip_section(rows: list[RoundTripRow], bins: int) -> list[str]:
    """Lines of a model card on the round trip of images with a number of grey levels."""
    table = round_trip_figures(rows, ("largest error", "median error", "bit-exact"))
    return [
        "## Round trip",
        "",
        f"{verdict(rows)}.",
        "",
        "![round trip](roundtrip.png)",
        "",
        *table.markdown(names=1).splitlines(),
        "",
        "The error of an image is the largest |x − decode(encode(x))| over its pixels, which are in [0, 1]; "
        f"a byte changes at an error of {0.5 / bins:.1e}. In fp64, at most the first "
        f"{DOUBLE_PRECISION_IMAGES} images of a group are measured.",
        "",
    ]


def kept_sentence(report: dict[str, Any], config: dict[str, Any]) -> str:
    """Sentences of a model card on which weights were kept."""
    weights = ("averaged " if config["training"]["ema"] else "current ") if config else ""
    return (
        f"The {weights}weights with the lowest validation bits/dim are kept{best_at(report)}. "
        "The test split was evaluated once. "
    )


LIMITS = [
    "## Limits",
    "",
    "The samples are those of a small model with a short training time. Likelihoods are comparable only "
    "for the same pixels, grey levels and dequantisation. A high likelihood does not imply that an image "
    "resembles the data.",
    "",
]
"""Lines of a flow's model card on what its figures do not say."""
