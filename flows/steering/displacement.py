"""Displacements f(edit(x)) − f(x): where the code of an edited picture lies, seen by the inverse."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.data.base import Attribute, Batch, ImageData
from flows.errors import Unsupported, UserError
from flows.images import to_bytes, to_unit
from flows.models.base import LatentModel, Space
from flows.semantics.base import column_of, scores_of, true_scores
from flows.steering.base import Direction
from flows.steering.method import FEWEST, Method, Task
from flows.steering.operators import OPERATORS, Operator


@dataclass
class Displacement(Method):
    """The walk that fits the displacements of edited real images best, in closed form.

    v = Σ α·d / Σ α² over images x and strengths α, with d = f(edit(x, α)) − f(x): least squares of d on α.
    How straight the edit is in the space is told by R² = 1 − Σ|d − αv|² / Σ|d|², for each level too. Needs
    a model that encodes; with an exact inverse, d is the truth and not an encoder's opinion of it.

    An edit is one of `OPERATORS`, or a score of a data set that can be drawn again: then it is the same scene
    with that factor changed and all else as it was, and α is by how much the true score has changed.

    Args:
        images: real training images.
        strengths: tried on each.
    """

    images: int = 200
    strengths: int = 2

    def find(self, task: Task) -> list[Direction]:
        """One direction for each name of `--scores`: zoom, shift x, brightness, …, or daylight, lamp_on, ….

        Raises:
            ValueError: the model does not encode into this space, there is no such edit, or too few images
                show the factor.
        """
        if not task.model.check_space(task.space).encodes:
            raise Unsupported(
                f"{type(task.model).__name__} does not encode into {task.space!r}: no displacement"
            )
        if task.data is None:
            raise UserError("displacements are those of real images: --source images")
        if not task.names:
            raise UserError("--scores: name edits, or scores of factors that can be drawn again")
        attributes = [redrawn(task.data, name) for name in task.names]
        given = task.data.first("train", self.images)
        return [
            self.of_operator(task, given, OPERATORS[name])
            if attribute is None
            else self.of_factor(task, task.data, attribute, name)
            for name, attribute in zip(task.names, attributes, strict=True)
        ]

    def of_operator(self, task: Task, batch: Batch, operator: Operator) -> Direction:
        """The walk of an edit of pixels; an amount of 1 is its full strength."""
        random = torch.Generator().manual_seed(task.seed)
        strengths = operator.draw(len(batch.images) * self.strengths, random)
        repeated = batch.images.repeat_interleave(self.strengths, 0)
        pictures = to_unit(repeated, task.model.bins)
        moved, known = operator(pictures, strengths)
        edited = to_bytes(moved * known + pictures * (1 - known), task.model.bins)
        labels = batch.labels.repeat_interleave(self.strengths)
        found = displacements(task.model, repeated, edited, task.space, labels)
        return fit_direction(found, operator.amount(strengths), operator.name, task)

    def of_factor(self, task: Task, data: ImageData, attribute: Attribute, name: str) -> Direction:
        """The walk of a factor; as with labelled methods its sigma and plane are those of real codes.

        Where the factor cannot be seen, or an image stays the same, nothing is learned from it.
        """
        known = data.first("train", self.images)
        if known.attributes is None:
            raise UserError(f"--data {data.name}: nothing is known of its images")
        index, score = data.attributes.index(attribute), column_of(scores_of([attribute]), name)
        before, random = known.attributes[:, index], torch.Generator().manual_seed(task.seed)
        codes = encoded(task.model, known.images, task.space, known.labels)
        moved, amounts = [], []
        for _ in range(1 if attribute.kind == "binary" else self.strengths):
            after = other_values(attribute, before, random)
            edited = data.redraw("train", attribute.name, after)
            scores = [true_scores([attribute], each[:, None])[:, score] for each in (before, after)]
            amount = scores[1] - scores[0]
            seen = (amount != 0) & ~amount.isnan() & (edited != known.images).flatten(1).any(1)
            if int(seen.sum()) < FEWEST:
                raise UserError(
                    f"{name}: it changes {int(seen.sum())} of {len(seen)} images, expected at least "
                    f"{FEWEST}; take more images"
                )
            moved.append(encoded(task.model, edited[seen], task.space, known.labels[seen]) - codes[seen])
            amounts.append(amount[seen])
        found = fit_direction(torch.cat(moved), torch.cat(amounts), name, task)
        along = codes @ found.vector.double()
        evidence = {**found.evidence, "step of 1, sigmas": found.sigma / float(along.std())}
        return replace(found, sigma=float(along.std()), bias=-float(along.median()), evidence=evidence)


def redrawn(data: ImageData, name: str) -> Attribute | None:
    """The attribute of the data that a score of this name is of; None where it is an edit of pixels.

    Raises:
        ValueError: it is neither, or the data cannot be drawn again.
    """
    if name in OPERATORS:
        return None
    told = {score.name: each for each in data.attributes for score in scores_of([each])}
    if not data.draws_again or name not in told or told[name].kind == "category":
        # Of another category everything is another: there is no "all else as it was".
        factors = [key for key, each in told.items() if each.kind != "category"] if data.draws_again else []
        raise UserError(f"there is no edit {name!r}; expected some of {', '.join([*OPERATORS, *factors])}")
    return told[name]


def other_values(attribute: Attribute, values: Tensor, random: torch.Generator) -> Tensor:
    """Values (n,) to change an attribute to: the other one of two, else any of its range; NaN stays."""
    if attribute.kind == "binary":
        return 1 - values
    low, high = (0.0, 1.0) if attribute.kind == "circular" else (attribute.low, attribute.high)
    drawn = low + (high - low) * torch.rand(len(values), generator=random)
    return torch.where(values.isnan(), torch.nan, drawn)


def displacements(
    model: LatentModel, images: Tensor, edited: Tensor, space: str, labels: Tensor | None = None
) -> Tensor:
    """f(edited) − f(images) of uint8 images (n, C, H, W): float64 (n, D), on the host."""
    return encoded(model, edited, space, labels) - encoded(model, images, space, labels)


def encoded(model: LatentModel, images: Tensor, space: str, labels: Tensor | None) -> Tensor:
    """Values of the codes of uint8 images: float64 (n, D), on the host."""
    return model.encode_bytes(images, space, labels).values.cpu().double()


def fit_direction(moved: Tensor, amounts: Tensor, name: str, task: Task) -> Direction:
    """The least-squares walk of displacements (n, D) on amounts (n,).

    Its `sigma` is the length that an amount of 1 moves; there is no plane, the bias is 0.
    """
    amounts = amounts.double()
    walk = amounts @ moved / amounts.square().sum()
    length = float(walk.norm())
    space = task.model.check_space(task.space)
    straight = linearity(moved, amounts, walk, space)
    return Direction(
        name, (walk / max(length, 1e-12)).float(), 0.0, task.space, length, "displacement",
        fingerprint=task.model.fingerprint(), evidence={**straight, "images": float(len(moved))},
    )  # fmt: skip


def linearity(moved: Tensor, amounts: Tensor, walk: Tensor, space: Space) -> dict[str, float]:
    """R² of displacements by a straight walk, of the whole code and of each level, and the levels' shares.

    `share <level>` is the level's part of Σ|d|²: which level the edit is of.
    """
    rest = (moved - amounts[:, None] * walk).square().sum(0)
    whole = moved.square().sum(0)
    found = {"r2": float(1 - rest.sum() / whole.sum())}
    if len(space.levels) > 1:
        for name, where in space.levels.items():
            found[f"r2 {name}"] = float(1 - rest[where].sum() / whole[where].sum().clamp(min=1e-12))
            found[f"share {name}"] = float(whole[where].sum() / whole.sum())
    return found
