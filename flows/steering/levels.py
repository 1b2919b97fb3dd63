"""Which level of a code carries what: layout, objects, attributes, colour (HiGAN, Yang et al. 2021)."""

from collections.abc import Sequence

import torch
from torch import Tensor

from flows.models.base import LatentModel
from flows.semantics.base import Predictor
from flows.steering.base import Direction
from flows.steering.evaluate import own_score, rescore


def to_levels(model: LatentModel, direction: Direction, space: str) -> Direction:
    """The direction in a space with more levels: a direction of w moves every layer of w+ by it.

    Raises:
        ValueError: there is no such map.
    """
    if direction.space == space:
        return direction
    vector = direction.vector[None].to(model.device, model.dtype)
    nothing = torch.zeros_like(vector)
    # The map of codes is affine here; the difference of two of its values is what it does to directions.
    wide = (model.convert(vector, direction.space, space) - model.convert(nothing, direction.space, space))[0]
    length = float(wide.norm())
    return Direction(
        direction.name, (wide / length).cpu(), direction.bias / length, space, direction.sigma * length,
        direction.method, fingerprint=direction.fingerprint, evidence=direction.evidence,
    )  # fmt: skip


def rank_levels(
    model: LatentModel,
    predictor: Predictor,
    directions: Sequence[Direction],
    codes: Tensor,
    alpha: float = 2.0,
    labels: Tensor | None = None,
) -> dict[str, dict[str, float]]:
    """For each direction, the change of its own score when one level alone is moved, in spreads.

    Args:
        model: whose codes they are.
        predictor: of the scores.
        directions: of one space with several levels.
        codes: (n, D) of that space.
        alpha: in sigmas.
        labels: (n,), of a class-conditional model.

    Returns:
        direction to level to signed change.

    Raises:
        ValueError: the space has one level only.
    """
    space = model.check_space(directions[0].space)
    if len(space.levels) < 2:
        raise ValueError(f"space {space.name!r} has one level only; nothing is there to rank")
    found: dict[str, dict[str, float]] = {each.name: {} for each in directions}
    for level in space.levels:
        moved = [each.on_levels([level], space) for each in directions]
        matrix = rescore(model, predictor, moved, codes, alpha, labels, resamples=2)
        for i, each in enumerate(directions):
            found[each.name][level] = float(matrix.signed[i, matrix.column(own_score(each.name))])
    return found
