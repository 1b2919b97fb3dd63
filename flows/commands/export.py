"""`flows export`: write a finished run as a checkpoint for publication."""

import shutil
from dataclasses import replace
from pathlib import Path

from flows.commands.common import check_outputs, write_json
from flows.config import parse_experiment
from flows.errors import UserError
from flows.models.base import LatentModel
from flows.opening import load_any
from flows.reports.run import write_report
from flows.steering.base import DIRECTIONS_FILE, Direction, load_directions, save_directions
from flows.storage.files import read_yaml, without_folders
from flows.storage.index import CONFIG_FILE
from flows.storage.stored import StoredModule
from flows.storage.trained import METRICS_FILE
from flows.training.folder import RUN_CONFIG, holds_run, write_receipt
from flows.training.log import check_trained, read_metrics


def export(
    run: Path,
    output: Path,
    half: bool = False,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Write the model, predictor or segmenter of a training run as a checkpoint, with a new report.

    Args:
        run: Folder of the run, written by `train.py`.
        output: New folder for the checkpoint: weights, config, curves, report and card, no training states.
        half: Whether to round the weights to half precision, which halves the file. The model still computes
            in fp32; the report evaluates the rounded weights.
        json: File for the report.
        device: Torch device of the evaluation; None takes CUDA if it is available.
    """
    for name in (CONFIG_FILE, RUN_CONFIG, METRICS_FILE):
        if not (run / name).is_file():
            raise UserError(f"{run / name} does not exist: expected the folder of a run of train.py")
    check_outputs(output=output, option="output", json=json)
    if holds_run(output):
        raise UserError(f"{output} holds a model already: choose a new folder")
    model = load_any(str(run), device)
    check_trained(read_metrics(run / METRICS_FILE))
    directions = run_directions(run, model)
    if half:
        model.round_to_half()
    parser, settings = parse_experiment(["--config", str(run / RUN_CONFIG), "--init", "null"])
    experiment = parser.instantiate(settings)
    # What is published names no folders of this machine.
    model.description = without_folders(model.description)
    model.save_pretrained(output)
    shutil.copy(run / METRICS_FILE, output / METRICS_FILE)
    if directions:
        # Rounding changes the fingerprint of the model; its directions remain valid.
        rounded = [replace(each, fingerprint=model.fingerprint()) for each in directions]
        save_directions(output / DIRECTIONS_FILE, rounded)
    # The config names the published folder, because the folder of the run exists on one machine only.
    write_receipt(output, without_folders(read_yaml(run / RUN_CONFIG) | {"folder": str(output)}))
    report = write_report(output, experiment.data, experiment.objective, str(model.device))
    report.show()
    write_json(json, report.values)


def run_directions(run: Path, model: StoredModule) -> list[Direction]:
    """Directions that a run wrote for its model; empty if it wrote none."""
    path = run / DIRECTIONS_FILE
    return load_directions(path, model) if isinstance(model, LatentModel) and path.is_file() else []
