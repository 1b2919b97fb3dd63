"""Which level of a code carries what: layout, objects, attributes, colour (HiGAN, Yang et al. 2021)."""

from collections.abc import Sequence
from pathlib import Path

import torch

from flows.errors import Unsupported
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.page import heat_map, write_page
from flows.semantics.base import Predictor
from flows.steering.base import Direction
from flows.steering.evaluate import own_score, rescore
from flows.steering.survey import score_codes


def to_levels(model: LatentModel, direction: Direction, space: str) -> Direction:
    """The direction in a space with more levels: a direction of w moves every layer of w+ by it.

    Raises:
        ValueError: there is no such map, or it is not linear: then a direction has no counterpart.
    """
    if direction.space == space:
        return direction
    vector = direction.vector[None].to(model.device, model.dtype)
    codes = Codes(torch.cat([torch.zeros_like(vector), vector, 3 * vector]), direction.space)
    still, once, thrice = model.convert_codes(codes, space).values
    wide = once - still
    if not torch.allclose(thrice - still, 3 * wide, rtol=1e-3, atol=1e-5):
        raise Unsupported(
            f"{direction.name} is a direction of {direction.space}, whose map to {space} is not linear; find "
            "it in another space, --space of `flows steer find`"
        )
    length = float(wide.norm())
    # A code's layers are all alike: code · vector is `length` times what it was, and so is the bias.
    return Direction(
        direction.name, (wide / length).cpu(), direction.bias * length, space, direction.sigma * length,
        direction.method, fingerprint=direction.fingerprint, evidence=direction.evidence,
    )  # fmt: skip


def rank_levels(
    model: LatentModel,
    predictor: Predictor,
    directions: Sequence[Direction],
    codes: Codes,
    alpha: float = 2.0,
) -> dict[str, dict[str, float]]:
    """For each direction, the change of its own score when one level alone is moved, in spreads.

    Args:
        model: whose codes they are.
        predictor: of the scores.
        directions: of one space with several levels.
        codes: n codes of that space.
        alpha: in sigmas.

    Returns:
        direction to level to signed change.

    Raises:
        ValueError: the space has one level only.
    """
    space = model.check_space(directions[0].space)
    if len(space.levels) < 2:
        raise Unsupported(f"space {space.name!r} has one level only; nothing is there to rank")
    found: dict[str, dict[str, float]] = {each.name: {} for each in directions}
    before = score_codes(model, predictor, codes)
    for level in space.levels:
        moved = [each.on_levels([level], space) for each in directions]
        matrix = rescore(model, predictor, moved, codes, alpha, resamples=2, before=before)
        for i, each in enumerate(directions):
            found[each.name][level] = float(matrix.signed[i, matrix.column(own_score(each.name))])
    return found


def with_levels(model: LatentModel, space: str) -> str:
    """The space itself where it has several levels, else `w+` where the model has that.

    Raises:
        ValueError: neither.
    """
    here = model.check_space(space)
    for name in (space, *sorted(here.conversions)):
        if len(model.spaces[name].levels) > 1:
            return name
    raise Unsupported(
        f"space {space!r} of {type(model).__name__} has one level, as have those that it converts to"
    )


def levels_map(out: Path, title: str, ranked: dict[str, dict[str, float]]) -> list[str]:
    """index.html with levels.png, a heat map of directions × levels; returns the names of the files."""
    names, levels = list(ranked), list(next(iter(ranked.values())))
    values = torch.tensor([[ranked[name][level] for level in levels] for name in names])
    told = "change of its own score when one level moves alone, in its spread"
    return write_page(out, title, {"levels": heat_map(values, names, levels, told)})
