"""flows export: a finished run as a folder to publish."""

import shutil
from dataclasses import replace
from pathlib import Path

from flows.commands.common import write_json
from flows.config import parse_experiment
from flows.errors import UserError
from flows.files import read_yaml
from flows.models.base import LatentModel
from flows.opening import load_any
from flows.steering.base import Direction, load_directions, save_directions
from flows.stored import CONFIG_FILE, StoredModule
from flows.training.folder import DIRECTIONS_FILE, RUN_CONFIG, holds_run, write_receipt
from flows.training.log import METRICS_FILE


def export(
    run: Path,
    output: Path,
    half: bool = False,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Write the model or judge of a run as a checkpoint of its own, and report on what is written.

    Args:
        run: folder that `train.py` wrote.
        output: a new folder for the checkpoint: weights, config, curves, report and card, no training states.
        half: round the weights to half precision, half the size; the model still computes in fp32, and the
            report is of the rounded one.
        json: file for the report.
        device: torch device for the report.
    """
    for name in (CONFIG_FILE, RUN_CONFIG, METRICS_FILE):
        if not (run / name).is_file():
            raise UserError(f"{run / name} does not exist: expected the folder of a run of train.py")
    if holds_run(output):
        raise UserError(f"{output} holds a model already: name a new folder")
    model = load_any(str(run), device)
    walks = run_directions(run, model)
    if half:
        model.round_to_half()
    parser, settings = parse_experiment(["--config", str(run / RUN_CONFIG)])
    experiment = parser.instantiate(settings)
    model.save_pretrained(output)
    shutil.copy(run / METRICS_FILE, output / METRICS_FILE)
    if walks:
        # The same model, rounded: its directions are its own.
        moved = [replace(each, fingerprint=model.fingerprint()) for each in walks]
        save_directions(output / DIRECTIONS_FILE, moved)
    # The same run again belongs where its model was published, not in the folder of somebody's machine.
    write_receipt(output, read_yaml(run / RUN_CONFIG) | {"folder": str(output)})
    write_json(json, experiment.objective.report(output, experiment.data, str(model.device)))


def run_directions(run: Path, model: StoredModule) -> list[Direction]:
    """The directions that a run wrote for its model, none where it wrote none."""
    path = run / DIRECTIONS_FILE
    return load_directions(path, model) if isinstance(model, LatentModel) and path.is_file() else []
