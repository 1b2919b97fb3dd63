"""Supervised learning of a judge: what is known of the images is what it learns to see."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from flows.data.base import Batch, ImageData, Split
from flows.semantics.base import SemanticModel
from flows.stored import StoredModule
from flows.training.phase import Evaluation, Objective, Phase
from flows.training.semantics_report import write_judge_report


class Supervised(Objective):
    """The loss that the judge itself has; at every look it is calibrated on the held-out images."""

    trains = SemanticModel

    def parts(self, model: StoredModule) -> list[nn.Module]:
        return [model]

    def phases(self, model: StoredModule, parts: Sequence[nn.Module]) -> list[Phase]:
        judge, (wrapped,) = cast(SemanticModel, model), parts

        def loss(batch: Batch, generator: torch.Generator, step: int) -> tuple[Tensor, dict[str, Tensor]]:
            return judge.loss(wrapped(batch.images), batch)

        return [Phase("supervised", list(model.parameters()), loss, wrapped)]

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        judge = cast(SemanticModel, model)
        judge.calibrate(held_out, images)
        measured = judge.measure(held_out, images)
        judge.note(measured)
        values = {
            f"validation/{figure}/{name}": value
            for name, figures in measured.values.items()
            for figure, value in figures.items()
            if figure != "images"
        }
        return Evaluation({"validation/wrong": measured.score, **values}, measured.score, measured.line, {})

    def report(self, folder: Path, data: ImageData, device: str) -> dict[str, Any]:
        return write_judge_report(folder, data, device)
