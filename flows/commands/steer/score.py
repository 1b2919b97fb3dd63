"""flows steer score: what moving along directions does to all that a predictor sees."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows.commands.common import data_of, load, load_predictor, print_table, write_json
from flows.commands.steer.apply import chosen, draw, encoded_test
from flows.images import reduce, to_unit
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.semantics.predictor import AttributePredictor
from flows.steering.base import Direction, load_directions, shift
from flows.steering.boundary import condition
from flows.steering.evaluate import own_score, rescore, response
from flows.steering.quality import Quality, distances_by_alpha, faithfulness, kept_share, reach_of
from flows.steering.report import HEAD, Scored, write_score_report
from flows.steering.survey import score_codes, survey_samples

STRIPS = 4
"""Pictures of each direction that the page shows."""
REAL = 500
"""Test images that say how much a score varies in the data."""
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
    kid: NonNegativeInt = 0,
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
        test: so many images of the model's test set instead, encoded; where the data can be drawn again,
            moves are compared with the true picture of the changed factor.
        kid: codes of which moved images are compared with as many real ones, at every number of sigmas; 0
            for no such comparison. Ten images take about a second for each curve.
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
    responses = {each.name: response(model, judge, each, codes, alphas, labels) for each in found}
    before = score_codes(model, judge, codes, space, labels)
    matrix = rescore(model, judge, found, codes, alpha, labels, before=before)
    costs = Costs(model, judge, codes, labels, before, alpha, bool(test), kid)
    scored = Scored(
        f"Steering {Path(checkpoint).name} in {space}",
        matrix,
        alphas,
        responses,
        {each.name: costs.of(each, alphas, responses[each.name]) for each in found},
        {each.name: each.method for each in found},
        [strip for each in found for strip in strips_of(model, each, codes[:STRIPS], alphas)],
    )
    written = write_score_report(out, scored)
    told = {"checkpoint": checkpoint, "predictor": predictor, "space": space, "codes": len(codes)}
    result = {**told, "of": "test images" if test else "samples", **scored.as_dict()}
    for path in (out / "scores.json", json):
        write_json(path, result)
    print_table(HEAD, scored.rows())
    print(f"written to {out}: {', '.join(written)}, scores.json")


class Costs:
    """What moves cost, of several directions; what they are compared with is looked at once.

    Args:
        model, judge: whose, and by whom they are seen.
        codes: (n, D), with `labels` and scores `before`.
        alpha: sigmas.
        encoded: whether the codes are those of the first test images.
        kid: codes taken for distances.
    """

    @torch.no_grad()
    def __init__(
        self, model: LatentModel, judge: AttributePredictor, codes: Tensor, labels: Tensor | None,
        before: Tensor, alpha: float, encoded: bool, kid: int,
    ):  # fmt: skip
        self.model, self.judge, self.codes, self.labels = model, judge, codes, labels
        self.before, self.alpha = before, alpha
        self.data = data_of(model, None)
        real = reduce(self.data.split("test").first(max(REAL, kid)).images, model.bins)
        parts = [to_unit(part, model.bins).to(model.device) for part in real.split(200)]
        self.real = torch.cat([judge.predict(part).cpu() for part in parts])
        self.redraws = encoded and self.data.draws_again
        self.distances = min(kid, len(codes), len(real))
        if self.distances:
            self.features = PooledFeatures()
            self.real_features = self.features(real[: self.distances])

    def of(self, direction: Direction, alphas: list[float], response: Tensor) -> Quality:
        """Of one direction, whose response (number of alphas, number of scores) is known."""
        own = own_score(direction.name)
        column = [score.name for score in self.judge.scores].index(own)
        labels, n = self.labels, self.distances
        distances: list[float] = []
        if n:
            which = None if labels is None else labels[:n]
            distances = distances_by_alpha(
                self.model, direction, self.codes[:n], alphas, self.real_features, self.features, which
            )
        faithful = None
        if self.redraws:
            faithful = faithfulness(
                self.model, self.judge, direction, self.codes, self.alpha, self.data, labels
            )
        return Quality(
            min(self.kept(direction, sign * self.alpha, own) for sign in (-1, 1)),
            reach_of(response[:, column], self.real[:, column]), distances, faithful,
        )  # fmt: skip

    def kept(self, direction: Direction, alpha: float, own: str) -> float:
        """See `Quality.kept`."""
        space = self.model.check_space(direction.space)
        moved = shift(self.codes, direction, alpha, space)
        after = score_codes(self.model, self.judge, moved, space.name, self.labels)
        return kept_share(self.before, after, self.judge.scores, own)


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
