"""Editability of inversions: edits of found codes, compared with true edits of the images."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from flows import images as pixels
from flows.core.statistics import FEWEST, interval_of_median, std_of
from flows.data.base import Attribute, ImageData
from flows.errors import Unsupported, UserError
from flows.inversion.base import Inversion, Inverter
from flows.inversion.edits import Edited, EditFigures
from flows.inversion.found import Found, found_by
from flows.metrics.reconstruction import psnr
from flows.models.base import LatentModel
from flows.semantics.base import Predictor, Score, column_of, predict_images
from flows.steering.base import Direction, shift
from flows.steering.evaluate import SAME, Rescoring, own_score, visible_changes
from flows.steering.levels import to_levels

__all__ = ["Editability"]

AMOUNTS = tuple(0.25 * step for step in range(25))
"""Numbers of sigmas that are tried for every image, from none to 6."""
ENOUGH = 0.9
"""Share of the requested change at which the smallest number of sigmas is taken."""
AGAIN = 8
"""Number of edited images that are inverted a second time, for the way back."""


@dataclass(frozen=True)
class Editability:
    """Edits of inverted test images along directions of their model, compared with true edits.

    For every image a change of the direction's factor is requested: the other of two values, or half the
    range towards its farther end. The data set renders the image again with the requested value; this is the
    true edit, the same for all models and inverters. The code is moved by the smallest number of sigmas at
    which a predictor reads `ENOUGH` of the requested change or, if none reads so much, by the one that reads
    most. What a search changed besides the code (tuned weights, noise inputs, activations) goes along. The
    first `AGAIN` edited images are rounded to bytes, inverted again by the same method, and moved back.

    Args:
        data: Data set of the images, which can render its test images again.
        directions: Name of a model to its directions; a model without any gets no figures.
        predictor: Predictor of the scores that the directions are named after.

    Raises:
        UserError: The data set cannot render its images again, or a direction's factor has neither two values
            nor a range.
    """

    data: ImageData
    directions: Mapping[str, Sequence[Direction]]
    predictor: Predictor

    def __post_init__(self) -> None:
        if not self.data.can_rerender:
            raise UserError(f"{self.data.name} cannot render an image again with another factor")
        for direction in (each for some in self.directions.values() for each in some):
            attribute_of(self.data, self.predictor, direction)

    def measure(
        self,
        name: str,
        model: LatentModel,
        inverter: Inverter,
        found: Inversion,
        images: Tensor,
        seed: int = 0,
    ) -> list[Edited]:
        """Edit the inverted images of a model along each of its directions.

        A direction has no figures if fewer than `FEWEST` of the images have its factor.

        Args:
            name: Name of the model in `directions`.
            model: Model of the codes.
            inverter: Inverter that found the codes, for the way back.
            found: Inversion of the images.
            images: uint8 (n, C, H, W), the first n test images.
            seed: Seed of the second inversion.
        """
        codes = found_by(found, [str(i) for i in range(len(images))], model)
        return [
            self._along(model, inverter, codes, found.succeeded, images, direction, seed)
            for direction in self.directions.get(name, ())
        ]

    def _along(
        self,
        model: LatentModel,
        inverter: Inverter,
        codes: Found,
        succeeded: Tensor,
        images: Tensor,
        direction: Direction,
        seed: int,
    ) -> Edited:
        attribute = attribute_of(self.data, self.predictor, direction)
        truth, wanted = requests(self.data, attribute, len(images))
        rows = torch.nonzero(~truth.isnan() & succeeded)[:, 0]
        if len(rows) < FEWEST:
            return Edited(EditFigures(direction=direction.name, images=len(rows)))
        target = pixels.reduce(self.data.rerender("test", attribute.name, wanted), model.bins)[rows]
        images, truth, wanted = images[rows], truth[rows], wanted[rows]
        found, direction = in_one_space(model, codes.rows(rows.tolist()), direction)
        sign = torch.sign(wanted - truth)
        column = column_of(self.predictor.scores, own_score(direction.name))
        trial = Trial(len(rows))
        for amount, edited in moved(model, found, direction, sign):
            scores = predict_images(self.predictor, pixels.to_unit(edited, model.bins), model.device)
            trial.offer(amount, edited, scores, (scores[:, column] - truth) / (wanted - truth))
        undone = self._undone(model, inverter, trial.images, direction, sign * trial.amounts, seed, found)
        quality = psnr(target, trial.images)
        low, high = interval_of_median(quality)
        figures = EditFigures(
            direction=direction.name,
            images=len(rows),
            unedited=float(psnr(target, images).median()),
            reached=float(trial.reached.clamp(0, 1).mean()),
            leakage=leakage(self.predictor.scores, trial.before, trial.scores, sign, direction.name),
            psnr=float(quality.median()),
            low=low,
            high=high,
            back=float(psnr(images[: len(undone)], undone).median()),
        )
        return Edited(figures, rows, target, trial.images, undone)

    def _undone(
        self,
        model: LatentModel,
        inverter: Inverter,
        edited: Tensor,
        direction: Direction,
        alphas: Tensor,
        seed: int,
        found: Found,
    ) -> Tensor:
        """Invert the first edited images again, move their codes back and decode them."""
        few = edited[:AGAIN]
        labels = None if found.codes.labels is None else found.codes.labels[:AGAIN]
        again = inverter.single().invert(model, few, torch.Generator().manual_seed(seed), labels)
        there = found_by(again, found.names[:AGAIN], model)
        if there.codes.space != direction.space:
            there = there.converted(model, direction.space)
        (undone,) = there.decode_moved(model, [shift(there.codes, direction, -alphas[:AGAIN])])
        return undone


class Trial:
    """Best edit so far of each of n images, over numbers of sigmas that are offered in ascending order.

    Attributes:
        amounts: (n,), numbers of sigmas.
        images: uint8 (n, C, H, W).
        scores: (n, number of scores), of these images.
        before: (n, number of scores), of the images with the first number of sigmas, which is 0.
        reached: (n,), share of the requested change.
    """

    amounts: Tensor
    images: Tensor
    scores: Tensor
    before: Tensor

    def __init__(self, n: int):
        self.reached = torch.full((n,), -torch.inf)

    def offer(self, amount: float, images: Tensor, scores: Tensor, reached: Tensor) -> None:
        """Take the edits that reach more than the best so far, unless that reaches enough."""
        if not hasattr(self, "images"):
            self.amounts = torch.full((len(images),), amount)
            self.images, self.scores, self.before = images.clone(), scores.clone(), scores.clone()
        better = (self.reached < ENOUGH) & (reached.nan_to_num(-torch.inf) > self.reached)
        self.amounts[better] = amount
        self.images[better], self.scores[better] = images[better], scores[better]
        self.reached[better] = reached[better]


def moved(
    model: LatentModel, found: Found, direction: Direction, sign: Tensor
) -> Iterator[tuple[float, Tensor]]:
    """Numbers of sigmas with the images, uint8 (n, C, H, W), of codes moved by them times `sign` (n,)."""
    moves = [shift(found.codes, direction, amount * sign) for amount in AMOUNTS]
    return zip(AMOUNTS, found.decode_moved(model, moves), strict=True)


def attribute_of(data: ImageData, predictor: Predictor, direction: Direction) -> Attribute:
    """Attribute that a direction is named after. Raises UserError unless it has two values or a range."""
    score = predictor.scores[column_of(predictor.scores, own_score(direction.name))]
    attribute = next((each for each in data.all_attributes() if each.name == score.attribute), None)
    if attribute is None or attribute.kind not in ("binary", "real"):
        raise UserError(
            f"direction {direction.name!r}: expected a factor of {data.name} with two values or a range; "
            "choose other directions"
        )
    return attribute


def requests(data: ImageData, attribute: Attribute, n: int) -> tuple[Tensor, Tensor]:
    """True and requested values of an attribute of the first n test images, (n,) each; NaN if undefined."""
    column = [each.name for each in data.all_attributes()].index(attribute.name)
    values = data.first("test", n).attributes
    assert values is not None
    truth = values[:, column].float()
    if attribute.kind == "binary":
        return truth, 1 - truth
    half = (attribute.high - attribute.low) / 2
    middle = attribute.low + half
    return truth, torch.where(truth < middle, truth + half, truth - half)


def in_one_space(model: LatentModel, found: Found, direction: Direction) -> tuple[Found, Direction]:
    """Bring codes and a direction into one space: that of the codes, if the map to it is linear."""
    try:
        return found, to_levels(model, direction, found.codes.space)
    except Unsupported:
        return found.converted(model, direction.space), direction


def leakage(scores: tuple[Score, ...], before: Tensor, after: Tensor, sign: Tensor, direction: str) -> float:
    """Largest leakage (`Rescoring.worst_leakage`) of edits whose requested changes have the signs (n,)."""
    std = std_of(before, SAME)
    change = visible_changes(sign[:, None] * (after - before), column_of(scores, own_score(direction))) / std
    mean = change.mean(0, keepdim=True)
    matrix = Rescoring(
        directions=[direction],
        scores=scores,
        signed=mean,
        clipped=mean.clamp(min=0),
        low=mean,
        high=mean,
        std=std,
        alpha=float("nan"),
        kept=[float("nan")],
    )
    return matrix.worst_leakage(direction)
