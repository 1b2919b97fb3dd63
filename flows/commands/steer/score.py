"""`flows steer score`: measure the effect of moves along directions on all scores of a predictor."""

from pathlib import Path

from flows.commands.common import check_outputs, finish
from flows.data.base import ImageData
from flows.display.formats import Formats
from flows.opening import bundled_model, data_if_needed, load_predictor, open_model
from flows.steering.base import doubts, load_directions
from flows.steering.scoring import ScoreSettings
from flows.steering.scoring import score as measure
from flows.steering.selection import split_directions


def score(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    without: list[str] | None = None,
    predictor: str | None = None,
    classes: Path | None = None,
    settings: ScoreSettings = ScoreSettings(),
    data: ImageData | None = None,
    out: Path = Path("steering"),
    formats: Formats = Formats(),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Move samples or encoded test images along directions, and measure the change of all scores.

    Args:
        checkpoint: Folder or name of the model.
        directions: File of directions, written by `flows steer find`.
        names: Names of the directions; None takes all.
        without: Names of directions in the file to which the others are made orthogonal (conditional
            projection).
        predictor: Checkpoint of an attribute predictor; None takes the included one for the model's images.
        classes: File with the names of the classes, one per line, if the predictor is a file of another
            project: TorchScript, torch.export, or weights of torchvision.
        settings: Settings of the scoring.
        data: Data set; None takes the one that the model was trained on.
        out: Output folder for index.html, matrix.png, responses.png, strips.png and scores.json.
        formats: Additional formats of tables and figures.
        json: Additional file for the contents of scores.json.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    predictor = predictor or bundled_model("predictor", model)
    loaded = load_predictor(predictor, model, classes)
    selected, fixed = split_directions(load_directions(directions, model), names, without)
    known = data_if_needed(model, data, settings.needs_data)
    scored = measure(model, loaded, selected, settings, known, fixed)
    for note in doubts(selected):
        print(note)
    title = f"Steering {Path(checkpoint).name} in {selected[0].space}"
    inputs = {"checkpoint": checkpoint, "predictor": predictor}
    finish(scored, out, "scores.json", title, inputs, json, formats=formats)
