"""Moves of found codes along directions, with a budget of typicality."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from flows.inversion.found import Found
from flows.metrics.typicality import limit_typicality
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.steering.base import Direction, place, shift

__all__ = ["Moved", "move_found"]


@dataclass(frozen=True, kw_only=True)
class Moved:
    """Codes, moved along one direction.

    Attributes:
        images: uint8 (n, C, H, W) of each move.
        change: Mean change of a byte by each move.
        reached: Mean number of sigmas that each move reaches within the budget; None without a budget.
        notes: Sentences on moves that the budget has shortened.
    """

    images: list[Tensor]
    change: list[float]
    reached: list[float] | None
    notes: list[str]


def move_found(
    model: LatentModel,
    found: Found,
    unmoved: Tensor,
    direction: Direction,
    alphas: Sequence[float],
    absolute: bool = False,
    budget: float | None = None,
) -> Moved:
    """Move found codes along a direction, with what belongs to each code besides it.

    Args:
        model: Model of the codes.
        found: Codes.
        unmoved: uint8 (n, C, H, W), their decoded images.
        direction: Direction in their space.
        alphas: Moves in sigmas.
        absolute: Whether to move to that many sigmas from the direction's hyperplane, instead of by that
            many from the code.
        budget: Maximum typicality of moved codes; longer moves are shortened. None sets no limit.
    """
    start = found.codes.to(model.device)
    moves = [(place if absolute else shift)(start, direction, alpha) for alpha in alphas]
    reached, notes = None, list[str]()
    if budget is not None:
        wanted = [sigmas_moved(start, to, direction) for to in moves]
        moves = [limit_typicality(model, start, to, budget) for to in moves]
        reached = [sigmas_moved(start, to, direction) for to in moves]
        notes = [
            f"{direction.name} {alpha:+g}: the budget leaves {cut:+.3g} of {full:+.3g} σ on average"
            for alpha, full, cut in zip(alphas, wanted, reached, strict=True)
            if abs(cut) < 0.99 * abs(full)
        ]
    images = found.decode_moved(model, moves)
    change = [float((each.int() - unmoved.int()).abs().float().mean()) for each in images]
    return Moved(images=images, change=change, reached=reached, notes=notes)


def sigmas_moved(start: Codes, end: Codes, direction: Direction) -> float:
    """Mean number of sigmas that codes have moved along a direction."""
    step = direction.step.to(start.values)
    along = (end.values - start.values) @ step / (step @ step)
    return float(along.mean()) / direction.sigma
