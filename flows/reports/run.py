"""Report of a run, chosen by the kind of its model."""

from collections.abc import Sequence
from pathlib import Path

from flows.data.base import ImageData
from flows.errors import Unsupported
from flows.models.base import LatentModel, LikelihoodModel
from flows.opening import load_any
from flows.reports.flow import write_flow_report
from flows.reports.gan import write_gan_report
from flows.reports.section import RunReport
from flows.reports.semantics import write_semantics_report
from flows.semantics.base import SemanticModel
from flows.storage.stored import StoredModule
from flows.training.phase import Objective


def write_report(
    folder: Path,
    data: ImageData,
    objective: Objective,
    device: str = "cpu",
    classes: Sequence[type[StoredModule]] = (),
) -> RunReport:
    """Evaluate the exported model of a run on the test split, once, and write report, pictures and card.

    Args:
        folder: Folder of the run.
        data: Data set that the model was trained on.
        objective: Objective of the run, which writes what it learned besides the model.
        device: Torch device.
        classes: Classes that the model may have besides those of the package.

    Raises:
        Unsupported: The model is neither a latent nor a semantic model, for which there is no report.
    """
    model = load_any(str(folder), device, classes)
    learned = objective.finish(model, folder)
    if isinstance(model, LikelihoodModel):
        return write_flow_report(model, folder, data, learned)
    if isinstance(model, LatentModel):
        return write_gan_report(model, folder, data, learned)
    if isinstance(model, SemanticModel):
        return write_semantics_report(model, folder, data, learned)
    raise Unsupported(f"there is no report for a {type(model).__name__}; the model is in {folder}")
