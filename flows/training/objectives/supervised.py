"""Supervised training of a semantic model on the attributes or masks of a data set."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from flows.data.base import Batch, Split
from flows.semantics.base import SemanticModel
from flows.storage.stored import StoredModule
from flows.training.phase import Evaluation, Objective, Phase


class Supervised(Objective):
    """Objective with the semantic model's own loss; every evaluation calibrates it on held-out images."""

    trains = SemanticModel

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
