"""Report of a predictor's or segmenter's run: figures on the test images, curves, and a model card."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.data.base import ImageData
from flows.display.drawing import save_picture
from flows.display.table import Table
from flows.reports.card import card_head, facts_of, loader_of, test_note, training_paragraph
from flows.reports.figures import draw_bars, draw_lines
from flows.reports.section import RunReport
from flows.semantics.base import Measurement, SemanticModel
from flows.storage.files import to_json, write_text
from flows.storage.stored import CARD_FILE
from flows.storage.trained import METRICS_FILE, REPORT_FILE
from flows.training.folder import read_receipt
from flows.training.log import read_metrics

FIGURES = {"r2": "R²", "iou": "IoU", "seen": "visibility"}
"""Figures that have another name in model cards than in `report.json`."""
MAIN = ("accuracy", "r2", "iou")
"""Figures that measure the quality of an attribute or class, of which each has one."""
ROWS = {"r2": "numeric attribute", "accuracy": "categorical attribute", "iou": "class"}
"""Rows of the table of a main figure."""

LOADER = (
    "from flows.semantics import load_semantic_model",
    'model = load_semantic_model("path/to/this/folder")',
)
"""Lines of Python that load a semantic model."""
CURVES = {"supervised/loss": "training loss, nats", "validation/wrong": "1 − mean quality, held-out images"}


def write_semantics_report(
    model: SemanticModel, folder: Path, data: ImageData, learned: Mapping[str, Any] | None = None
) -> RunReport:
    """Evaluate the exported semantic model of a run on the test split and write report, pictures and card.

    Args:
        model: Exported model.
        folder: Folder of the run.
        data: Data set that the model was trained on.
        learned: Figures of what the objective learned besides the model (`Objective.finish`).
    """
    metrics = read_metrics(folder / METRICS_FILE)
    test = data.split("test")
    measured = model.measure(test, None)
    facts = {**facts_of(model, metrics, data, folder), **(learned or {})}
    report: dict[str, Any] = {**facts, "test": measured.values, "images": len(test)}
    write_text(folder / REPORT_FILE, to_json(report))
    draw_lines(metrics, CURVES, folder / "curves.png")
    draw_bars(main_figures(measured), folder / "quality.png")
    pictures = model.pictures(test)
    for name, picture in pictures.items():
        save_picture(picture, folder / name)
    card = semantics_card(model, report, measured, read_receipt(folder), list(pictures))
    write_text(folder / CARD_FILE, card)
    written = ", ".join([REPORT_FILE, "curves.png", "quality.png", *pictures, CARD_FILE])
    line = f"{type(model).__name__}: on {len(test):,} test images {measured.line}"
    return RunReport(report, [*test_note(report), line, *across(model), f"written to {folder}: {written}"])


def across(model: SemanticModel) -> list[str]:
    """Sentences on the cross-validation of a model, and on what it has not learnt; empty without one."""
    folds, known = model.description.get("folds", 0), model.description.get("validation", {})
    if not folds:
        return []
    main = {name: next(key for key in MAIN if key in values) for name, values in known.items()}
    listed = ", ".join(f"{name} {FIGURES.get(key, key)} {known[name][key]:.2f}" for name, key in main.items())
    lines = [f"by {folds}-fold cross-validation: {listed}"]
    if missed := model.not_learnt():
        lines.append(
            f"not learnt: {', '.join(missed)}; permuted labels would agree as well with the predictions. "
            "More pictures, or clearer ones, may help"
        )
    return lines


def main_figures(measured: Measurement) -> dict[str, dict[str, float]]:
    """Main figure (the first) of every attribute or class, grouped by the figure's name."""
    grouped: dict[str, dict[str, float]] = {}
    for name, figures in measured.values.items():
        figure, value = next(iter(figures.items()))
        grouped.setdefault(figure, {})[name] = value
    return grouped


def figure_table(values: dict[str, dict[str, float]], figure: str) -> Table:
    """Figures of the attributes or classes that have this figure."""
    rows = {name: figures for name, figures in values.items() if figure in figures}
    columns = list(next(iter(rows.values())))
    head = [ROWS.get(figure, ""), *(FIGURES.get(column, column) for column in columns)]
    return Table(head, [[name, *(as_text(figures[c]) for c in columns)] for name, figures in rows.items()])


def as_text(figure: float) -> str:
    """Figure with four significant digits; a number of images with all."""
    return str(figure) if isinstance(figure, int) else f"{figure:.4g}"


def semantics_card(
    model: SemanticModel,
    report: dict[str, Any],
    measured: Measurement,
    config: dict[str, Any],
    pictures: list[str],
) -> str:
    """Model card of a predictor or segmenter."""
    data = report["data"]
    size = (
        f"{report['parameters']:,} parameters, images {tuple(data['image_shape'])}. Pixels: "
        f"{data['transform']}."
    )
    tables = [
        line
        for figure in main_figures(measured)
        for line in (*figure_table(measured.values, figure).markdown(names=1).splitlines(), "")
    ]
    lines = [
        *card_head(report, "", size, loader_of(model, LOADER)),
        f"On {report['images']:,} test images: {measured.line}.",
        "",
        *[text for line in across(model) for text in (f"{line[0].upper()}{line[1:]}.", "")],
        "![quality](quality.png)",
        "",
        *[line for picture in pictures for line in (f"![{Path(picture).stem}]({picture})", "")],
        *tables,
        *model.legend(),
        "",
        "![curves](curves.png)",
        "",
        *training_paragraph(report, config),
    ]
    return "\n".join(lines)
