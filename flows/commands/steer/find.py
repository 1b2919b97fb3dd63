"""`flows steer find`: find directions that change given scores."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from jsonargparse import lazy_instance

from flows.commands.common import check_outputs, write_json
from flows.core.bounds import PositiveFloat, PositiveInt, Seed
from flows.data.base import ImageData
from flows.display.page import as_text
from flows.display.table import Table
from flows.errors import UserError
from flows.opening import CACHE, data_of, load_predictor, open_model
from flows.semantics.base import Predictor
from flows.steering.base import DIRECTIONS_FILE, Direction, as_row, doubts, save_directions
from flows.steering.boundary import Boundary
from flows.steering.method import Method, Task
from flows.storage.files import expand

BOUNDARY: Method = lazy_instance(Boundary)


def find(
    checkpoint: str,
    scores: list[str] | None = None,
    method: Method = BOUNDARY,
    predictor: str | None = None,
    classes: Path | None = None,
    source: Literal["samples", "images"] = "samples",
    data: ImageData | None = None,
    n: PositiveInt = 4000,
    space: str | None = None,
    temperature: PositiveFloat = 1.0,
    seed: Seed = 0,
    output: Path = Path(DIRECTIONS_FILE),
    cache: Path | None = CACHE,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Find directions in a model's latent space, for `steer apply` and `steer score`.

    Methods with labels learn from a survey of codes with scores: samples, scored by a predictor, or encoded
    training images, with the ground truth of their data set. Surveys of samples are cached.

    Args:
        checkpoint: Folder or name of the model.
        scores: Names of the directions: scores that they change, such as `daylight`, `wood` or
            `category: bedroom`, or edits, such as `zoom` or `brightness`, for the methods Walk and
            Displacement. Unsupervised methods need none.
        method: Method with its options; docs/guides/steering.md describes all methods.
        predictor: Checkpoint of an attribute predictor, for the scores of samples and their gradients; None
            takes the included one for the model's images.
        classes: File with the names of the classes, one per line, if the predictor is a file of another
            project: TorchScript, torch.export, or weights of torchvision.
        source: Source of the codes: samples, or encoded training images.
        data: Data set of the training images; None takes the one that the model was trained on.
        n: Number of codes in the survey.
        space: Latent space of the directions; None takes the model's search space (w for LIA and StyleGAN).
        temperature: Temperature of the samples.
        seed: Seed of the samples.
        output: File for the directions.
        cache: Folder for surveys of samples; None disables the cache.
        json: File for the result.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(file=output, json=json)
    model = open_model(checkpoint, device)
    space = space or model.search_space
    model.check_space(space)
    asked = method.needs_predictor or (method.needs_scores and source == "samples")
    loaded = load_predictor(predictor, model, classes) if asked else None
    if data is not None and source == "samples":
        raise UserError("--data is the data set of --source images; samples need none")
    images = data_of(model, data) if source == "images" else None
    folder = None if cache is None else expand(cache)
    task = Task(model, space, scores or [], loaded, images, n, seed, temperature, folder)
    directions = method.find(task)
    save_directions(output, directions)
    table_of(directions).print()
    print(f"{len(directions)} directions in space {space!r}: {output}")
    for note in notes_on(directions, loaded):
        print(note)
    write_json(json, {"checkpoint": checkpoint, "directions": [as_row(each) for each in directions]})


def notes_on(directions: Sequence[Direction], predictor: Predictor | None) -> list[str]:
    """Sentences on directions that permuted labels would give as well, and on scores that were not learnt."""
    notes = doubts(directions)
    learnt = {} if predictor is None else {score.name: score for score in predictor.scores}
    return notes + [
        f"{each.name}: the predictor has not learnt it (p = {learnt[each.name].p_value:.2g})"
        for each in directions
        if each.name in learnt and not learnt[each.name].is_learnt
    ]


def table_of(directions: Sequence[Direction]) -> Table:
    """Sigma and evidence of each direction."""
    columns = list(dict.fromkeys(key for each in directions for key in each.evidence))
    rows = [
        [each.name, as_text(each.sigma), *(as_text(each.evidence.get(c, math.nan)) for c in columns)]
        for each in directions
    ]
    return Table(["direction", "sigma", *columns], rows)
