"""Displacements f(edit(x)) − f(x) of codes under edits of the images, by a model that encodes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flows.core.bounds import PositiveInt
from flows.data.base import Attribute, Batch, ImageData
from flows.errors import Unsupported, UserError
from flows.images import to_bytes, to_unit
from flows.models.base import LatentModel, Space
from flows.semantics.base import column_of, scores_of, true_scores
from flows.steering.base import Direction
from flows.steering.method import FEWEST, Method, Task
from flows.steering.operators import OPERATORS, Operator

__all__ = ["Displacement"]


@dataclass
class Displacement(Method):
    """Least-squares fit, in closed form, of a direction to the displacements of edited real images.

    v = Σ α·d / Σ α² over images x and strengths α, with d = f(edit(x, α)) − f(x). R² = 1 − Σ|d − αv|² / Σ|d|²
    measures how straight the edit is in the space, also for each level. The model must encode; with an exact
    inverse, d is exact and not an encoder's estimate.

    An edit is one of `OPERATORS`, or a score of a data set that can be rendered again. In the latter case the
    same scene is rendered with that factor changed and all others unchanged, and α is the change of the true
    score.

    Args:
        images: Number of real training images.
        strengths: Number of strengths per image.
    """

    images: PositiveInt = 200
    strengths: PositiveInt = 2

    def find(self, task: Task) -> list[Direction]:
        """Fit one direction per name in `--scores`: zoom, shift x, brightness, …, or daylight, lamp_on, ….

        Raises:
            Unsupported: The model does not encode into this space.
            UserError: The task has no data or no names, there is no such edit, or too few images show the
                factor.
        """
        if not task.model.check_space(task.space).encodes:
            raise Unsupported(
                f"{type(task.model).__name__} does not encode into {task.space!r}: expected a space with an "
                "encoder"
            )
        if task.data is None:
            raise UserError("displacements need real images: set --source images")
        if not task.names:
            raise UserError(
                "--scores: expected names of edits, or scores of factors that can be rendered again"
            )
        attributes = [rendered_attribute(task.data, name) for name in task.names]
        batch = task.data.first("train", self.images)
        return [
            self.of_operator(task, batch, OPERATORS[name])
            if attribute is None
            else self.of_factor(task, task.data, attribute, name)
            for name, attribute in zip(task.names, attributes, strict=True)
        ]

    def of_operator(self, task: Task, batch: Batch, operator: Operator) -> Direction:
        """Fit the direction of a pixel edit; an amount of 1 is the edit at full strength."""
        random = torch.Generator().manual_seed(task.seed)
        strengths = operator.sample(len(batch.images) * self.strengths, random)
        repeated = batch.images.repeat_interleave(self.strengths, 0)
        images = to_unit(repeated, task.model.bins)
        moved, known = operator(images, strengths)
        edited = to_bytes(moved * known + images * (1 - known), task.model.bins)
        labels = batch.labels.repeat_interleave(self.strengths)
        moved_codes = displacements(task.model, repeated, edited, task.space, labels)
        return fit_direction(moved_codes, operator.amount(strengths), operator.name, task)

    def of_factor(self, task: Task, data: ImageData, attribute: Attribute, name: str) -> Direction:
        """Fit the direction of a factor; sigma and plane are those of real codes, as for labelled methods.

        Images in which the factor is not visible, or which it does not change, are left out.
        """
        batch = data.first("train", self.images)
        if batch.attributes is None:
            raise UserError(f"--data {data.name}: expected images with known attributes")
        index, score = data.attributes.index(attribute), column_of(scores_of([attribute]), name)
        before, random = batch.attributes[:, index], torch.Generator().manual_seed(task.seed)
        codes = code_values(task.model, batch.images, task.space, batch.labels)
        moved, amounts = [], []
        for _ in range(1 if attribute.kind == "binary" else self.strengths):
            after = other_values(attribute, before, random)
            edited = data.rerender("train", attribute.name, after)
            scores = [true_scores([attribute], values[:, None])[:, score] for values in (before, after)]
            amount = scores[1] - scores[0]
            seen = (amount != 0) & ~amount.isnan() & (edited != batch.images).flatten(1).any(1)
            if int(seen.sum()) < FEWEST:
                raise UserError(
                    f"{name}: it changes {int(seen.sum())} of {len(seen)} images, expected at least "
                    f"{FEWEST}; take more images"
                )
            moved.append(code_values(task.model, edited[seen], task.space, batch.labels[seen]) - codes[seen])
            amounts.append(amount[seen])
        direction = fit_direction(torch.cat(moved), torch.cat(amounts), name, task)
        along = codes @ direction.vector.double()
        evidence = {**direction.evidence, "step of 1, sigmas": direction.sigma / float(along.std())}
        return replace(direction, sigma=float(along.std()), bias=-float(along.median()), evidence=evidence)


def rendered_attribute(data: ImageData, name: str) -> Attribute | None:
    """Attribute of the data that a score belongs to; None if the name is that of a pixel edit.

    Raises:
        UserError: The name is neither, or the data cannot be rendered again.
    """
    if name in OPERATORS:
        return None
    attributes = {score.name: attribute for attribute in data.attributes for score in scores_of([attribute])}
    if not data.can_rerender or name not in attributes or attributes[name].kind == "category":
        # Another category changes the whole scene, so no other factor stays unchanged.
        factors = [key for key, a in attributes.items() if a.kind != "category"] if data.can_rerender else []
        raise UserError(f"there is no edit {name!r}; expected some of {', '.join([*OPERATORS, *factors])}")
    return attributes[name]


def other_values(attribute: Attribute, values: Tensor, random: torch.Generator) -> Tensor:
    """New values (n,) of an attribute: the other of two, or uniform in its range; NaN stays NaN."""
    if attribute.kind == "binary":
        return 1 - values
    low, high = (0.0, 1.0) if attribute.kind == "circular" else (attribute.low, attribute.high)
    uniform = low + (high - low) * torch.rand(len(values), generator=random)
    return torch.where(values.isnan(), torch.nan, uniform)


def displacements(
    model: LatentModel, images: Tensor, edited: Tensor, space: str, labels: Tensor | None = None
) -> Tensor:
    """Displacements f(edited) − f(images) of uint8 images (n, C, H, W): float64 (n, D), on the host."""
    return code_values(model, edited, space, labels) - code_values(model, images, space, labels)


def code_values(model: LatentModel, images: Tensor, space: str, labels: Tensor | None) -> Tensor:
    """Values of the codes of uint8 images (n, C, H, W): float64 (n, D), on the host."""
    return model.encode_bytes(images, space, labels).values.cpu().double()


def fit_direction(moved: Tensor, amounts: Tensor, name: str, task: Task) -> Direction:
    """Fit a direction to displacements (n, D) at amounts (n,) by least squares.

    Its `sigma` is the length of the move for an amount of 1. It has no plane; its bias is 0.
    """
    amounts = amounts.double()
    slope = amounts @ moved / amounts.square().sum()
    length = float(slope.norm())
    space = task.model.check_space(task.space)
    straight = linearity(moved, amounts, slope, space)
    return Direction(
        name=name,
        vector=(slope / max(length, 1e-12)).float(),
        bias=0.0,
        space=task.space,
        sigma=length,
        method="displacement",
        fingerprint=task.model.fingerprint(),
        evidence={**straight, "images": float(len(moved))},
    )


def linearity(moved: Tensor, amounts: Tensor, slope: Tensor, space: Space) -> dict[str, float]:
    """R² of the fit `amounts · slope` for the whole code and each level, and the share of each level.

    `share <level>` is the level's part of Σ|d|²; it shows which levels the edit changes.
    """
    residual = (moved - amounts[:, None] * slope).square().sum(0)
    total = moved.square().sum(0)
    figures = {"r2": float(1 - residual.sum() / total.sum())}
    if len(space.levels) > 1:
        for name, part in space.levels.items():
            figures[f"r2 {name}"] = float(1 - residual[part].sum() / total[part].sum().clamp(min=1e-12))
            figures[f"share {name}"] = float(total[part].sum() / total.sum())
    return figures
