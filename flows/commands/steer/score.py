"""`flows steer score`: measure the effect of moves along directions on all scores of a predictor."""

from pathlib import Path

import torch
from torch import Tensor

from flows.bounds import FiniteFloat, NonNegativeInt, PositiveFloat, PositiveInt, Seed
from flows.commands.common import check_outputs, write_json
from flows.commands.steer.apply import split_directions
from flows.data.base import ImageData
from flows.errors import DataMissing
from flows.images import reduce, to_bytes, to_unit
from flows.metrics.perceptual import PooledFeatures
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import bundled_model, data_known, data_of, first_test, load_predictor, open_model
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
from flows.terminal import print_table

STRIPS = 4
"""Number of images per direction that the page shows."""
REAL = 500
"""Minimum number of test images from which the range of each score in the data is estimated."""


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
    data: ImageData | None = None,
    seed: Seed = 1,
    out: Path = Path("steering"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Move samples or encoded test images along directions, and measure the change of all scores.

    Args:
        checkpoint: Folder or hub repository of the model.
        directions: File of directions, written by `flows steer find`.
        names: Names of the directions; None takes all.
        without: Names of directions in the file to which the others are made orthogonal (conditional
            projection).
        predictor: Checkpoint of an attribute predictor; None takes the included one for the model's images.
        alpha: Move to either side, in sigmas.
        steps: Number of steps to either side, in response curves and strips.
        n: Number of samples that are moved.
        test: Number of encoded test images that are moved instead of samples; 0 takes samples. If the data
            can be rendered again, the moves are compared with re-renders in which only the factor changes.
        kid: Number of moved images that are compared with as many test images by KID, at every step; 0 skips
            the comparison. Ten images take about one second per direction.
        data: Data set; None takes the one that the model was trained on.
        seed: Seed of the samples, which should not be that of `steer find`.
        out: Output folder for index.html, matrix.png, responses.png, strips.png and scores.json.
        json: Additional file for the contents of scores.json.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    predictor = predictor or bundled_model("predictor", model)
    loaded = load_predictor(predictor, model)
    everything = load_directions(directions, model)
    selected, fixed = split_directions(everything, names, without)
    check_own_scores(selected, loaded)
    space = selected[0].space
    # Before the long computation, so that missing data and packages are reported at once.
    costs = Costs(model, loaded, alpha, test, kid, data)
    if test:
        batch = first_test(model, test, data)
        codes = model.encode_bytes(batch.images, space, batch.labels)
    else:
        codes = model.sample(n, space, seed)
    if fixed:
        selected = [condition(each, fixed, codes) for each in selected]
    alphas = [alpha * i / steps for i in range(-steps, steps + 1)]
    responses = {each.name: response(model, loaded, each, codes, alphas) for each in selected}
    before = score_codes(model, loaded, codes)
    matrix = rescore(model, loaded, selected, codes, alpha, before=before)
    scored = Scored(
        title=f"Steering {Path(checkpoint).name} in {space}",
        matrix=matrix,
        alphas=alphas,
        responses=responses,
        qualities={each.name: costs.of(each, codes, alphas, responses[each.name]) for each in selected},
        methods={each.name: each.method for each in selected},
        strips=[
            strip for each in selected for strip in strips_of(model, loaded, each, codes, before, alphas)
        ],
    )
    written = write_score_report(out, scored)
    inputs = {"checkpoint": checkpoint, "predictor": predictor, "space": space, "codes": len(codes)}
    moved = "test images" if test else "samples"
    result = {**inputs, "of": moved, "kid_images": costs.images(codes), **scored.as_dict()}
    for path in (out / "scores.json", json):
        write_json(path, result)
    print_table(HEAD, scored.rows())
    print(f"written to {out}: {', '.join(written)}, scores.json")


class Costs:
    """Costs of moves along several directions; the real images to compare with are predicted once.

    Args:
        model: Model whose codes are moved.
        predictor: Predictor of the scores.
        alpha: Move to either side, in sigmas.
        test: Number of test images, from the first one, that are moved; 0 if samples are moved.
        kid: Number of images for KID; 0 computes no KID.
        data: Data set; None takes the one that the model was trained on.

    Raises:
        UserError: Data or packages that `kid` or `test` need are missing; otherwise no data are needed.
    """

    def __init__(
        self,
        model: LatentModel,
        predictor: AttributePredictor,
        alpha: float,
        test: int,
        kid: int,
        data: ImageData | None = None,
    ):
        self.model, self.predictor, self.alpha, self.kid = model, predictor, alpha, kid
        self.features = PooledFeatures() if kid else None
        self.data: ImageData | None = None
        self.real, self.compared = torch.empty(0, len(predictor.scores)), torch.empty(0)
        self.rerenders = False
        needed = bool(kid or test)
        if data is None and not needed and not data_known(model):
            return
        self.data = data_of(model, data)
        try:
            split = self.data.split("test")
        except DataMissing:
            if needed:
                raise
            return
        # Without the images that are moved: their distance to themselves would be too small.
        images = split.first(test + max(REAL, kid)).images[test:]
        real = reduce(images, model.bins)
        self.real = predict_images(predictor, to_unit(real, model.bins), model.device)
        self.rerenders = bool(test) and self.data.can_rerender
        self.compared = real[:kid]

    def images(self, codes: Codes) -> int:
        """Number of images for KID: at most the number of real images."""
        return min(len(self.compared), len(codes), self.kid)

    def of(self, direction: Direction, codes: Codes, alphas: list[FiniteFloat], response: Tensor) -> Quality:
        """Costs of moves along one direction.

        Args:
            direction: Direction of the moves.
            codes: n codes.
            alphas: Moves of the response, in sigmas.
            response: (number of alphas, number of scores), mean scores.
        """
        column = column_of(self.predictor.scores, own_score(direction.name))
        faithful = None
        if self.data is not None and self.rerenders:
            faithful = faithfulness(self.model, self.predictor, direction, codes, self.alpha, self.data)
        return Quality(
            reach=reach_of(response[:, column], self.real[:, column]) if len(self.real) else float("nan"),
            distances=self.distances(direction, codes, alphas),
            faithful=faithful,
        )

    def distances(self, direction: Direction, codes: Codes, alphas: list[FiniteFloat]) -> list[float]:
        """KID of moved images to real ones, for each of `alphas`; empty if no KID is computed."""
        n = self.images(codes)
        if self.features is None or n < 2:
            return []
        real = self.features.held_out(self.compared[:n])
        return distances_by_alpha(self.model, direction, codes[:n], alphas, real, self.features)


def strips_of(
    model: LatentModel,
    predictor: Predictor,
    direction: Direction,
    codes: Codes,
    before: Tensor,
    alphas: list[FiniteFloat],
) -> list[tuple[str, Tensor]]:
    """Strips uint8 (number of alphas, C, H, W) along a direction, the first one with the direction's name.

    Only images in which the direction's own score is defined are moved, such as images with a lamp for the
    hue of the lamp.
    """
    defined = ~before[:, column_of(predictor.scores, own_score(direction.name))].isnan()
    shown = torch.nonzero(defined if defined.any() else ~defined)[:STRIPS, 0]
    few = codes[shown]
    moved = [to_bytes(moved_images(model, direction, few, alpha), model.bins) for alpha in alphas]
    return [
        (direction.name if i == 0 else "", torch.stack([part[i] for part in moved])) for i in range(len(few))
    ]
