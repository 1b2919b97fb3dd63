"""flows steer score: what moving along directions does to all that a predictor sees."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows.commands.common import load, load_predictor, print_table, write_json
from flows.commands.steer.apply import chosen, draw, encoded_test
from flows.models.base import LatentModel
from flows.steering.base import Direction, load_directions, shift
from flows.steering.boundary import condition
from flows.steering.evaluate import rescore, response
from flows.steering.report import HEAD, Scored, write_score_report
from flows.steering.survey import survey_samples

STRIPS = 4
"""Pictures of each direction that the page shows."""
CONDITION_CODES = 1000
"""Codes by which the plane of a conditioned direction is placed."""


def score(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    without: list[str] | None = None,
    predictor: str = "checkpoints/scenes-predictor",
    alpha: PositiveFloat = 2.0,
    steps: PositiveInt = 3,
    n: PositiveInt = 500,
    test: NonNegativeInt = 0,
    seed: NonNegativeInt = 1,
    out: Path = Path("steering"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Move samples or encoded test images, and let a predictor see what changed.

    Args:
        checkpoint: folder or hub repository of the model.
        directions: file of `flows steer find`.
        names: of the directions to take; None takes all.
        without: directions of the file that the others are made to leave alone (conditional projection).
        predictor: checkpoint of an attribute predictor.
        alpha: sigmas moved, for the matrix; curves and strips go from −alpha to alpha.
        steps: to either side, of curves and strips.
        n: samples, of another seed than the directions were found on.
        test: so many images of the model's test set instead, encoded.
        seed: of samples.
        out: folder for index.html, matrix.png, responses.png, strips.png and scores.json.
        json: file for the result, beside the one in `out`.
        device: torch device.
    """
    model = load(checkpoint, device)
    judge = load_predictor(predictor, model)
    everything = load_directions(directions, model)
    found = chosen(everything, names)
    space = found[0].space
    if without:
        others = chosen(everything, without)
        survey = survey_samples(model, judge, CONDITION_CODES, space, seed + 1)
        found = [condition(each, others, survey) for each in found if each.name not in without]
        if not found:
            raise ValueError("--without: no direction is left to be scored")
    if test:
        codes, labels = encoded_test(model, test, space)
    else:
        codes = model.sample_codes(n, space, torch.Generator().manual_seed(seed))
        labels = model.classes_in_turn(n)
    alphas = [alpha * i / steps for i in range(-steps, steps + 1)]
    scored = Scored(
        f"Steering {Path(checkpoint).name} in {space}",
        rescore(model, judge, found, codes, alpha, labels),
        alphas,
        {each.name: response(model, judge, each, codes, alphas, labels) for each in found},
        [strip for each in found for strip in strips_of(model, each, codes[:STRIPS], alphas)],
    )
    written = write_score_report(out, scored)
    told = {"checkpoint": checkpoint, "predictor": predictor, "space": space, "codes": len(codes)}
    result = {**told, "of": "test images" if test else "samples", **scored.as_dict()}
    for path in (out / "scores.json", json):
        write_json(path, result)
    print_table(HEAD, scored.rows())
    print(f"written to {out}: {', '.join(written)}, scores.json")


def strips_of(
    model: LatentModel, direction: Direction, codes: Tensor, alphas: list[float]
) -> list[tuple[str, Tensor]]:
    """For each code a strip uint8 (number of alphas, C, H, W); the first has the direction's name."""
    space = model.check_space(direction.space)
    drawn = [draw(model, shift(codes, direction, alpha, space), space.name) for alpha in alphas]
    return [
        (direction.name if i == 0 else "", torch.stack([part[i] for part in drawn]))
        for i in range(len(codes))
    ]
