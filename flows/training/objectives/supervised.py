"""Supervised training of a semantic model on the attributes or masks of a data set."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from flows.core.bounds import NonNegativeInt, PositiveInt
from flows.data.base import Batch, ImageData, Split, StreamedData, join
from flows.data.folds import folds_of, number_of_folds
from flows.semantics.base import SemanticModel, outputs_on
from flows.semantics.load import load_semantic_model
from flows.storage.stored import StoredModule
from flows.training.batches import fit_batch
from flows.training.loop import fit
from flows.training.phase import Evaluation, Objective, Phase
from flows.training.settings import Training


class Supervised(Objective):
    """Objective with the semantic model's own loss; every evaluation calibrates it on held-out images.

    Few held-out images measure nothing well. With `folds`, the training and validation images of a small data
    set are divided into as many parts, and a model is trained without each of them, with the settings of the
    run. Their predictions of the parts calibrate the model of the run and measure its quality, and say what
    was not learnt: where permuted truths would agree as well.

    Args:
        folds: Number of parts; 0 trains no further models.
        most: Largest number of training and validation images that are divided.
    """

    trains = SemanticModel

    def __init__(self, folds: NonNegativeInt = 0, most: PositiveInt = 2000):
        self.folds, self.most = folds, most

    def parts(self, model: StoredModule) -> list[nn.Module]:
        return [model]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        semantic, (wrapped,) = cast(SemanticModel, model), parts

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            return semantic.loss(wrapped(batch.images), batch)

        return [Phase("supervised", list(model.parameters()), loss, wrapped)]

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        semantic = cast(SemanticModel, model)
        semantic.calibrate(held_out, images)
        measured = semantic.measure(held_out, images)
        semantic.note(measured)
        values = {
            f"validation/{figure}/{name}": value
            for name, figures in measured.values.items()
            for figure, value in figures.items()
            if figure != "images"
        }
        return Evaluation({"validation/wrong": measured.score, **values}, measured.score, measured.line, {})

    def trainings(self, data: ImageData) -> int:
        return 1 + (number_of_folds(data, self.folds, self.most) if self.folds > 1 else 0)

    def conclude(self, folder: Path, data: ImageData, training: Training, accelerator: Accelerator) -> None:
        if self.folds < 2 or isinstance(data, StreamedData) or accelerator.num_processes > 1:
            return
        parts = folds_of(data, self.folds, self.most)
        if not parts:
            return
        model = load_semantic_model(folder, str(accelerator.device))
        results = []
        for number, part in enumerate(parts, 1):
            print(f"cross-validation: part {number} of {len(parts)}", flush=True)
            results.append(without(part, model, training, accelerator))
        outputs, known = torch.cat([each for each, _ in results]), join([batch for _, batch in results])
        model.calibrate_on(outputs, known)
        model.note(model.measure_on(outputs, known), len(parts), model.significance(outputs, known))
        model.save_pretrained(folder)


def without(
    part: ImageData, model: SemanticModel, training: Training, accelerator: Accelerator
) -> tuple[Tensor, Batch]:
    """Outputs on a part of a model that is trained without it, and the batch of the part.

    Raises:
        KeyboardInterrupt: A signal arrived.
    """
    arguments = {name: value for name, value in model.arguments().items() if name != "model_type"}
    torch.manual_seed(training.seed)
    twin = type(model)(**arguments)
    # Evaluated only at the end: the part is not used to choose a model.
    end = training.images
    settings = replace(training, validate_every=end, save_every=end, patience=None)
    settings = fit_batch(settings, len(part.split("train")), 1)
    with TemporaryDirectory() as place:
        outcome = fit(twin, part, settings, Path(place), Supervised(), accelerator)
        if outcome.interrupted:
            raise KeyboardInterrupt
        best = load_semantic_model(place, str(accelerator.device))
    return outputs_on(best, part.split("validation"), None)
