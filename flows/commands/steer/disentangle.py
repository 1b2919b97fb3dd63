"""flows steer disentangle: directions that leave other things alone."""

from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt

from flows.commands.common import print_table, write_json
from flows.commands.steer.apply import split_directions
from flows.opening import data_of, load_predictor, open_model
from flows.page import as_text
from flows.steering.base import as_row, load_directions, save_directions
from flows.steering.boundary import condition
from flows.steering.disentangle import disentangle as bend
from flows.steering.evaluate import check_own_scores
from flows.steering.method import Task


def disentangle(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    without: list[str] | None = None,
    others: Path | None = None,
    predictor: str | None = None,
    source: Literal["samples", "images"] | None = None,
    n: PositiveInt = 500,
    alpha: PositiveFloat = 2.0,
    enough: PositiveFloat = 0.1,
    rounds: PositiveInt = 5,
    seed: NonNegativeInt = 0,
    output: Path = Path("disentangled.safetensors"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Take from directions what changes other things, for `steer apply` and `steer score`.

    By default each is moved along, scored, and bent until no other score of the predictor changes with it by
    more than `enough` of its own (a minute or so each). With --without it is projected once so that it is
    orthogonal to the directions named, of the file or of another (conditional manipulation).

    Args:
        checkpoint: folder or hub repository of the model.
        directions: file of `flows steer find`.
        names: of the directions to take; None takes all.
        without: names of directions to project onto the complement of, instead.
        others: file of those, of the same space, as of `--method ScoreGradient`; None takes `directions`.
        predictor: checkpoint of an attribute predictor, which projections do not need; None takes the
            shipped one for its images.
        source: of the codes that are moved: samples, or real training images; None takes images where the
            space has an encoder.
        n: codes moved.
        alpha: sigmas moved to either side, as directions will be used.
        enough: change of another score, relative to its own, that may stay.
        rounds: at most.
        seed: of samples.
        output: file for the directions, of the same names.
        json: file for the result.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    known = load_directions(directions, model)
    rest = load_directions(others, model) if others else None
    found, alone = split_directions(known, names, without, rest)
    space = found[0].space
    encodes = model.check_space(space).encodes and model.description.get("source") is not None
    images = encodes if source is None else source == "images"
    task = Task(model, space, [], None, data_of(model, None) if images else None, n, seed)
    if alone:
        codes = task.codes(n)
        changed = [condition(each, alone, codes) for each in found]
        head, rows = ["direction", "kept"], [[each.name, as_text(each.evidence["kept"])] for each in changed]
    else:
        judge = load_predictor(predictor, model)
        check_own_scores(found, judge)
        codes = task.codes(n)
        corrected = [bend(model, judge, each, codes, alpha, enough, rounds) for each in found]
        changed = [each.direction for each in corrected]
        head = ["direction", "leakage", "after", "effect", "after", "scores left alone"]
        rows = [
            [each.direction.name, as_text(each.leakages[0]), as_text(min(each.leakages)),
             as_text(each.effects[0]), as_text(each.effects[each.best]), str(len(each.left_alone))]
            for each in corrected
        ]  # fmt: skip
    save_directions(output, changed)
    print_table(head, rows)
    print(f"{len(changed)} directions of space {space!r}: {output}")
    write_json(json, {"checkpoint": checkpoint, "directions": [as_row(each) for each in changed]})
