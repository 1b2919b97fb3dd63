"""Report of a run, chosen by the kind of its model."""

from pathlib import Path
from typing import Any

from flows.data.base import ImageData
from flows.models.base import LatentModel, LikelihoodModel
from flows.opening import load_any
from flows.reports.flow import write_flow_report
from flows.reports.gan import write_gan_report
from flows.reports.semantics import write_semantics_report
from flows.training.phase import Objective


def write_report(folder: Path, data: ImageData, objective: Objective, device: str = "cpu") -> dict[str, Any]:
    """Evaluate the exported model of a run on the test split, once, and write report, pictures and card.

    Args:
        folder: Folder of the run.
        data: Data set that the model was trained on.
        objective: Objective of the run, which writes what it learned besides the model.
        device: Torch device.

    Returns:
        Contents of report.json.
    """
    model = load_any(str(folder), device)
    learned = objective.finish(model, folder)
    if isinstance(model, LikelihoodModel):
        return write_flow_report(folder, data, device=device, learned=learned)
    if isinstance(model, LatentModel):
        return write_gan_report(folder, data, device, learned)
    return write_semantics_report(folder, data, device, learned)
