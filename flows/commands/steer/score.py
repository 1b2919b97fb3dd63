"""flows steer score: what moving along directions does to all that a predictor sees."""

from pathlib import Path

import torch
from jsonargparse.typing import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from flows.commands.common import print_table, write_json
from flows.commands.steer.apply import split_directions
from flows.data.base import ImageData
from flows.errors import UserError
from flows.images import reduce, to_bytes, to_unit
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import bundled_model, data_of, first_test, load_predictor, open_model
from flows.semantics.base import Predictor, column_of, predict_images
from flows.semantics.predictor import AttributePredictor
from flows.steering.base import Direction, load_directions
from flows.steering.boundary import condition
from flows.steering.evaluate import check_own_scores, own_score, rescore, response
from flows.steering.quality import (
    Quality,
    distances_by_alpha,
    faithfulness,
    moved_images,
    reach_of,
)
from flows.steering.report import HEAD, Scored, write_score_report
from flows.steering.survey import score_codes

STRIPS = 4
"""Pictures of each direction that the page shows."""
REAL = 500
"""Test images that say how much a score varies in the data."""


def score(
    checkpoint: str,
    directions: Path,
    names: list[str] | None = None,
    without: list[str] | None = None,
    predictor: str | None = None,
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
        predictor: checkpoint of an attribute predictor; None takes the shipped one for its images.
        alpha: sigmas moved to either side.
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
    model = open_model(checkpoint, device)
    predictor = predictor or bundled_model("predictor", model)
    judge = load_predictor(predictor, model)
    everything = load_directions(directions, model)
    found, others = split_directions(everything, names, without)
    check_own_scores(found, judge)
    space = found[0].space
    # Before the long work: what is missing should be missed at once.
    costs = Costs(model, judge, alpha, test, kid)
    if test:
        batch = first_test(model, test)
        codes = model.encode_bytes(batch.images, space, batch.labels)
    else:
        codes = model.sample(n, space, seed)
    if others:
        found = [condition(each, others, codes) for each in found]
    alphas = [alpha * i / steps for i in range(-steps, steps + 1)]
    responses = {each.name: response(model, judge, each, codes, alphas) for each in found}
    before = score_codes(model, judge, codes)
    matrix = rescore(model, judge, found, codes, alpha, before=before)
    scored = Scored(
        f"Steering {Path(checkpoint).name} in {space}",
        matrix,
        alphas,
        responses,
        {each.name: costs.of(each, codes, alphas, responses[each.name]) for each in found},
        {each.name: each.method for each in found},
        [strip for each in found for strip in strips_of(model, judge, each, codes, before, alphas)],
    )
    written = write_score_report(out, scored)
    told = {"checkpoint": checkpoint, "predictor": predictor, "space": space, "codes": len(codes)}
    of = "test images" if test else "samples"
    result = {**told, "of": of, "kid_images": costs.images(codes), **scored.as_dict()}
    for path in (out / "scores.json", json):
        write_json(path, result)
    print_table(HEAD, scored.rows())
    print(f"written to {out}: {', '.join(written)}, scores.json")


class Costs:
    """What moves cost, of several directions; what they are compared with is looked at once.

    Args:
        model, judge: whose, and by whom they are seen.
        alpha: sigmas.
        test: test images, from the first, that are moved; 0 where samples are.
        kid: codes taken for distances.

    Raises:
        UserError: what `kid` or `test` need is missing; without them the data are not needed.
    """

    def __init__(self, model: LatentModel, judge: AttributePredictor, alpha: float, test: int, kid: int):
        self.model, self.judge, self.alpha, self.kid = model, judge, alpha, kid
        self.features = PooledFeatures() if kid else None
        self.data: ImageData | None = None
        self.real, self.compared = torch.empty(0, len(judge.scores)), torch.empty(0)
        self.redraws = False
        try:
            self.data = data_of(model, None)
            # None of the images that are moved: a distance to themselves would be too small.
            images = self.data.split("test").first(test + max(REAL, kid)).images[test:]
        except UserError:
            if kid or test:
                raise
            return
        real = reduce(images, model.bins)
        self.real = predict_images(judge, to_unit(real, model.bins), model.device)
        self.redraws = bool(test) and self.data.draws_again
        self.compared = real[:kid]

    def images(self, codes: Codes) -> int:
        """How many codes a distance is taken of: as many as there are real images."""
        return min(len(self.compared), len(codes), self.kid)

    def of(self, direction: Direction, codes: Codes, alphas: list[float], response: Tensor) -> Quality:
        """Of one direction.

        Args:
            direction: which.
            codes: n codes.
            alphas: sigmas of the response.
            response: (number of alphas, number of scores).
        """
        column = column_of(self.judge.scores, own_score(direction.name))
        faithful = None
        if self.data is not None and self.redraws:
            faithful = faithfulness(self.model, self.judge, direction, codes, self.alpha, self.data)
        return Quality(
            reach_of(response[:, column], self.real[:, column]) if len(self.real) else float("nan"),
            self.distances(direction, codes, alphas), faithful,
        )  # fmt: skip

    def distances(self, direction: Direction, codes: Codes, alphas: list[float]) -> list[float]:
        """See `Quality.distances`."""
        n = self.images(codes)
        if self.features is None or n < 2:
            return []
        real = self.features.held_out(self.compared[:n])
        return distances_by_alpha(self.model, direction, codes[:n], alphas, real, self.features)


def strips_of(
    model: LatentModel,
    judge: Predictor,
    direction: Direction,
    codes: Codes,
    before: Tensor,
    alphas: list[float],
) -> list[tuple[str, Tensor]]:
    """Strips uint8 (number of alphas, C, H, W), the first with the direction's name.

    Of the first codes that show what it is named after: no floor of a church.
    """
    seen = ~before[:, column_of(judge.scores, own_score(direction.name))].isnan()
    shown = torch.nonzero(seen if seen.any() else ~seen)[:STRIPS, 0]
    few = codes[shown]
    drawn = [to_bytes(moved_images(model, direction, few, alpha), model.bins) for alpha in alphas]
    return [
        (direction.name if i == 0 else "", torch.stack([part[i] for part in drawn])) for i in range(len(few))
    ]
