"""What stands at the end of a judge's run: its own error on the test images, curves, and a model card."""

from pathlib import Path
from typing import Any

from flows import images as pixels
from flows.data.base import ImageData
from flows.files import read_yaml, to_json, write_atomically
from flows.semantics.base import Measurement, SemanticModel
from flows.semantics.load import load_semantic_model
from flows.stored import CARD_FILE
from flows.training.figures import draw_bars, draw_lines
from flows.training.folder import REPORT_FILE, RUN_CONFIG
from flows.training.log import METRICS_FILE, read_metrics
from flows.training.report import facts_of, training_paragraph

CURVES = {"supervised/loss": "training loss, nats", "validation/wrong": "1 − mean figure, held-out images"}


def write_judge_report(folder: Path, data: ImageData, device: str = "cpu") -> dict[str, Any]:
    """Measure the exported judge of a run on the test split and write report, pictures and card.

    Args:
        folder: of the run.
        data: what it was trained on.
        device: torch device.
    """
    judge = load_semantic_model(folder, device)
    metrics = read_metrics(folder / METRICS_FILE)
    test = data.split("test")
    measured = judge.measure(test, None)
    report: dict[str, Any] = {**facts_of(judge, metrics), "test": measured.values, "images": len(test)}
    write_atomically(folder / REPORT_FILE, lambda path: path.write_text(to_json(report)))
    draw_lines(metrics, CURVES, folder / "curves.png")
    draw_bars(main_figures(measured), folder / "quality.png")
    pictures = judge.pictures(test)
    for name, picture in pictures.items():
        write_atomically(folder / name, pixels.to_pillow(picture).save)
    card = _card(judge, report, measured, read_yaml(folder / RUN_CONFIG), list(pictures))
    write_atomically(folder / CARD_FILE, lambda path: path.write_text(card))
    print(f"{type(judge).__name__}: on {len(test):,} test images {measured.line}")
    print(
        f"written to {folder}: {', '.join([REPORT_FILE, 'curves.png', 'quality.png', *pictures, CARD_FILE])}"
    )
    return report


def main_figures(measured: Measurement) -> dict[str, dict[str, float]]:
    """The first figure of everything that was judged, by the figure's name."""
    found: dict[str, dict[str, float]] = {}
    for name, figures in measured.values.items():
        figure, value = next(iter(figures.items()))
        found.setdefault(figure, {})[name] = value
    return found


def _table(values: dict[str, dict[str, float]], figure: str) -> list[str]:
    """Markdown for all that are told by that figure."""
    rows = {name: figures for name, figures in values.items() if figure in figures}
    columns = list(next(iter(rows.values())))
    return [
        f"| | {' | '.join(columns)} |",
        f"| --- |{' --: |' * len(columns)}",
        *(
            f"| {name} | {' | '.join(f'{figures[c]:.4g}' for c in columns)} |"
            for name, figures in rows.items()
        ),
        "",
    ]


def _card(
    judge: SemanticModel,
    report: dict[str, Any],
    measured: Measurement,
    config: dict[str, Any],
    pictures: list[str],
) -> str:
    name, data = report["model"]["model_type"], report["data"]
    lines = [
        "---", "library_name: flows", f"tags: [{name.lower()}]", "---", "",
        f"# {name} on {data['name']}", "",
        f"{report['parameters']:,} parameters, images {tuple(data['image_shape'])}. Pixels: "
        f"{data['transform']}.", "",
        "```python", "from flows.semantics.load import load_judge", "",
        'judge = load_judge("path/to/this/folder")', "```", "",
        f"On {report['images']:,} test images: {measured.line}.", "",
        "![quality](quality.png)", "",
        *[line for picture in pictures for line in (f"![{picture}]({picture})", "")],
        *[line for figure in main_figures(measured) for line in _table(measured.values, figure)],
        *judge.legend(), "",
        "![curves](curves.png)", "",
        *training_paragraph(report, config),
    ]  # fmt: skip
    return "\n".join(lines)
