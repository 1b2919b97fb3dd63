"""flows steer find: directions that change what is asked for."""

import importlib
import pkgutil
from pathlib import Path
from typing import Literal

from jsonargparse import lazy_instance
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

import flows.steering
from flows.commands.common import print_table, write_json
from flows.opening import CACHE, data_of, load_predictor, open_model
from flows.page import as_text
from flows.steering.base import as_row, save_directions
from flows.steering.boundary import Boundary
from flows.steering.method import Labelled, Method, Task
from flows.steering.score_gradient import ScoreGradient

for module in pkgutil.iter_modules(flows.steering.__path__, "flows.steering."):
    importlib.import_module(module.name)  # so that --method knows every class by its short name

BOUNDARY: Method = lazy_instance(Boundary)


def find(
    checkpoint: str,
    scores: list[str] | None = None,
    method: Method = BOUNDARY,
    predictor: str | None = None,
    source: Literal["samples", "images"] = "samples",
    n: PositiveInt = 4000,
    space: str | None = None,
    temperature: PositiveFloat = 1.0,
    seed: NonNegativeInt = 0,
    output: Path = Path("directions.safetensors"),
    cache: Path | None = CACHE,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Find directions of a model's latent space, for `steer apply` and `steer score`.

    Codes are surveyed first: samples as a predictor sees their pictures, or real images, encoded, with the
    truth that their data set knows. Surveys are kept in a cache and looked up by all that they depend on.

    Args:
        checkpoint: folder or hub repository of the model.
        scores: what the directions should change: scores, as `daylight`, `wood`, `category: bedroom`;
            edits, as `zoom`, `brightness`, for Walk and Displacement; none for methods that need none.
        method: a way to find them, with its options; see docs/steering.md.
        predictor: checkpoint of an attribute predictor, for scores of samples, and their gradients; None
            takes the shipped one for its images.
        source: samples of the model, or real images of its training set.
        n: codes surveyed.
        space: of the directions; None takes the model's search space, w of LIA and StyleGAN.
        temperature: of samples.
        seed: of samples.
        output: file for the directions.
        cache: folder for surveys, or null.
        json: file for the result.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    space = space or model.search_space
    model.check_space(space)
    surveyed = source == "samples" and isinstance(method, Labelled)
    judge = None
    if surveyed or isinstance(method, ScoreGradient):
        judge = load_predictor(predictor, model)
    data = data_of(model, None) if source == "images" else None
    kept = None if cache is None else cache.expanduser()
    task = Task(model, space, scores or [], judge, data, n, seed, temperature, kept)
    directions = method.find(task)
    save_directions(output, directions)
    columns = list(dict.fromkeys(key for each in directions for key in each.evidence))
    print_table(
        ["direction", "sigma", *columns],
        [
            [each.name, as_text(each.sigma), *(as_text(each.evidence.get(c, float("nan"))) for c in columns)]
            for each in directions
        ],
    )
    print(f"{len(directions)} directions of space {space!r}: {output}")
    write_json(json, {"checkpoint": checkpoint, "directions": [as_row(each) for each in directions]})
