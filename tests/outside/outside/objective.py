"""Counted: maximum likelihood that counts its evaluations."""

from pathlib import Path
from typing import Any

from flows.data.base import Split
from flows.storage.stored import StoredModule
from flows.training.objectives.likelihood import Likelihood
from flows.training.phase import Evaluation


class Counted(Likelihood):
    """Maximum likelihood; the report has the number of evaluations."""

    evaluations = 0

    def evaluate(self, model: StoredModule, held_out: Split, images: int | None, shown: int) -> Evaluation:
        self.evaluations += 1
        return super().evaluate(model, held_out, images, shown)

    def finish(self, model: StoredModule, folder: Path) -> dict[str, Any]:
        return {"evaluations": self.evaluations}
