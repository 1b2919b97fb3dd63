"""`flows steer disentangle`: reduce the effect of directions on other attributes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flows.commands.common import check_outputs, write_json
from flows.core.bounds import PositiveFloat, PositiveInt, Seed
from flows.core.options import Options
from flows.data.base import ImageData
from flows.display.page import as_text
from flows.display.table import Table
from flows.models.base import LatentModel
from flows.opening import data_known, data_of, load_predictor, open_model
from flows.semantics.base import Predictor
from flows.steering.base import Direction, as_row, load_directions, save_directions
from flows.steering.boundary import condition
from flows.steering.disentangle import disentangle as correct
from flows.steering.evaluate import check_own_scores
from flows.steering.method import Task
from flows.steering.selection import split_directions

Changed = tuple[list[Direction], Table]
"""Changed directions, with a table of their figures."""


@dataclass(frozen=True, kw_only=True)
class DisentangleSettings(Options):
    """Settings of the correction.

    Attributes:
        source: Source of the codes that are moved: samples, or encoded training images; None takes images if
            the space has an encoder and the data set is known.
        n: Number of codes that are moved.
        alpha: Move to either side, in sigmas; it should be the size of later moves.
        enough: Change of another score, relative to the direction's own, that is not corrected.
        rounds: Maximum number of corrections per direction.
        seed: Seed of the samples.
    """

    source: Literal["samples", "images"] | None = None
    n: PositiveInt = 500
    alpha: PositiveFloat = 2.0
    enough: PositiveFloat = 0.1
    rounds: PositiveInt = 5
    seed: Seed = 0

    def task(self, model: LatentModel, space: str, data: ImageData | None) -> Task:
        """Task whose codes are moved."""
        encodes = model.check_space(space).encodes and (data is not None or data_known(model))
        images = encodes if self.source is None else self.source == "images"
        return Task(model, space, [], None, data_of(model, data) if images else None, self.n, self.seed)


def disentangle(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    without: list[str] | None = None,
    others: Path | None = None,
    predictor: str | None = None,
    classes: Path | None = None,
    settings: DisentangleSettings = DisentangleSettings(),
    data: ImageData | None = None,
    output: Path = Path("disentangled.safetensors"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Reduce the effect of directions on other attributes, for `steer apply` and `steer score`.

    By default, codes are moved along each direction and scored, and the direction is corrected until no other
    score of the predictor changes by more than `enough` times the direction's own (about one minute per
    direction). With --without, each direction is projected once to be orthogonal to the named directions
    (conditional manipulation).

    Args:
        checkpoint: Folder or name of the model.
        directions: File of directions, written by `flows steer find`.
        names: Names of the directions that are changed; None takes all.
        without: Names of directions to which the others are made orthogonal, instead of the correction by
            scores.
        others: File with the directions of `without`, in the same space, such as those of the method
            ScoreGradient; None takes `directions`.
        predictor: Checkpoint of an attribute predictor, not used with `without`; None takes the included one
            for the model's images.
        classes: File with the names of the classes, one per line, if the predictor is a file of another
            project: TorchScript, torch.export, or weights of torchvision.
        settings: Settings of the correction.
        data: Data set of the training images; None takes the one that the model was trained on.
        output: File for the changed directions.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(file=output, json=json)
    model = open_model(checkpoint, device)
    known = load_directions(directions, model)
    rest = load_directions(others, model) if others else None
    selected, fixed = split_directions(known, names, without, rest)
    task = settings.task(model, selected[0].space, data)
    if fixed:
        changed, table = conditioned(task, selected, fixed)
    else:
        loaded = load_predictor(predictor, task.model, classes)
        changed, table = corrected(task, selected, loaded, settings)
    save_directions(output, changed)
    table.print()
    print(f"{len(changed)} directions in space {task.space!r}: {output}")
    write_json(json, {"checkpoint": checkpoint, "directions": [as_row(each) for each in changed]})


def conditioned(task: Task, selected: Sequence[Direction], fixed: Sequence[Direction]) -> Changed:
    """Directions, made orthogonal to fixed ones."""
    codes = task.codes(task.n)
    changed = [condition(each, fixed, codes) for each in selected]
    rows = [[each.name, as_text(each.evidence["kept"])] for each in changed]
    return changed, Table(["direction", "length left"], rows)


def corrected(
    task: Task, selected: Sequence[Direction], loaded: Predictor, settings: DisentangleSettings
) -> Changed:
    """Directions, corrected until no other score of the predictor changes much."""
    check_own_scores(selected, loaded)
    codes = task.codes(task.n)
    found = [
        correct(task.model, loaded, each, codes, settings.alpha, settings.enough, settings.rounds)
        for each in selected
    ]
    head = ["direction", "leakage", "leakage after", "effect", "effect after", "scores corrected"]
    rows = [
        [
            each.direction.name,
            as_text(each.leakages[0]),
            as_text(min(each.leakages)),
            as_text(each.effects[0]),
            as_text(each.effects[each.best]),
            str(len(each.projected_out)),
        ]
        for each in found
    ]
    return [each.direction for each in found], Table(head, rows)
