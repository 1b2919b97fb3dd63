"""Effect of each level of a code: layout, objects, attributes, colour (HiGAN, Yang et al. 2021)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from flows.display.formats import Format
from flows.display.page import as_text, heat_map, write_page
from flows.display.table import Table
from flows.errors import Unsupported
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.semantics.base import Predictor
from flows.steering.base import Direction
from flows.steering.evaluate import own_score, rescore
from flows.steering.survey import score_codes

__all__ = ["rank_levels", "to_levels"]


def to_levels(model: LatentModel, direction: Direction, space: str) -> Direction:
    """Map a direction to a space with more levels: a direction of w moves every layer of w+ by its vector.

    Raises:
        Unsupported: There is no such map, or it is not linear, so that the direction has no counterpart.
    """
    if direction.space == space:
        return direction
    vector = direction.vector[None].to(model.device, model.dtype)
    codes = Codes(torch.cat([torch.zeros_like(vector), vector, 3 * vector]), direction.space)
    origin, once, thrice = model.convert_codes(codes, space).values
    mapped = once - origin
    if not torch.allclose(thrice - origin, 3 * mapped, rtol=1e-3, atol=1e-5):
        raise Unsupported(
            f"{direction.name} is a direction of {direction.space}, whose map to {space} is not linear; find "
            "it in another space with --space of `flows steer find`"
        )
    length = float(mapped.norm())
    # All layers of a code are equal, so that code · vector and the bias grow by the factor `length`.
    return Direction(
        name=direction.name,
        vector=(mapped / length).cpu(),
        bias=direction.bias * length,
        space=space,
        sigma=direction.sigma * length,
        method=direction.method,
        fingerprint=direction.fingerprint,
        bias_interval=scaled(direction.bias_interval, length),
        evidence=direction.evidence,
    )


def scaled(interval: tuple[float, float] | None, factor: float) -> tuple[float, float] | None:
    """Multiply both ends of an interval, if there is one."""
    return None if interval is None else (interval[0] * factor, interval[1] * factor)


def rank_levels(
    model: LatentModel,
    predictor: Predictor,
    directions: Sequence[Direction],
    codes: Codes,
    alpha: float = 2.0,
) -> dict[str, dict[str, float]]:
    """Change of each direction's own score, in std of the score, when a single level is moved.

    Args:
        model: Model of the codes.
        predictor: Predictor of the scores.
        directions: Directions of one space with several levels.
        codes: n codes of that space.
        alpha: Number of sigmas.

    Returns:
        Direction to level to signed change.

    Raises:
        Unsupported: The space has only one level.
    """
    space = model.check_space(directions[0].space)
    if len(space.levels) < 2:
        raise Unsupported(f"space {space.name!r} has only one level; take a space with several levels")
    effects: dict[str, dict[str, float]] = {each.name: {} for each in directions}
    before = score_codes(model, predictor, codes)
    for level in space.levels:
        moved = [each.on_levels([level], space) for each in directions]
        matrix = rescore(model, predictor, moved, codes, alpha, resamples=2, before=before)
        for i, each in enumerate(directions):
            effects[each.name][level] = float(matrix.signed[i, matrix.column(own_score(each.name))])
    return effects


def with_levels(model: LatentModel, space: str) -> str:
    """Name of the space if it has several levels, otherwise of a space with several that it converts to.

    Raises:
        Unsupported: There is no such space.
    """
    here = model.check_space(space)
    for name in (space, *sorted(here.conversions)):
        if len(model.spaces[name].levels) > 1:
            return name
    raise Unsupported(
        f"space {space!r} of {type(model).__name__} has one level, and so have all that it converts to"
    )


def levels_table(ranked: Mapping[str, Mapping[str, float]]) -> Table:
    """Effect of each level on the score of each direction, and the level with the largest one."""
    levels = list(next(iter(ranked.values())))
    rows = [
        [name, *(as_text(row[level]) for level in levels), max(row, key=lambda level: abs(row[level]))]
        for name, row in ranked.items()
    ]
    return Table(["direction", *levels, "largest"], rows)


def levels_map(
    out: Path, title: str, ranked: Mapping[str, Mapping[str, float]], formats: Sequence[Format] = ()
) -> list[str]:
    """Write index.html with levels.png, a heat map of directions × levels; returns the names of the files."""
    names, levels = list(ranked), list(next(iter(ranked.values())))
    values = torch.tensor([[ranked[name][level] for level in levels] for name in names])
    caption = "change of the own score when a single level is moved, in std"
    sheets, tables = {"levels": heat_map(values, names, levels, caption)}, {"levels": levels_table(ranked)}
    return write_page(out, title, sheets, tables=tables, formats=formats)
