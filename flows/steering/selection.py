"""Selection of the directions of a file by their names."""

from flows.errors import UserError
from flows.steering.base import Direction


def select_directions(
    directions: list[Direction], names: list[str] | None, option: str = "--names"
) -> list[Direction]:
    """Directions with the given names (None takes all), which must be in one space.

    Raises:
        UserError: There is no direction of a name, or the directions are in several spaces.
    """
    known = [each.name for each in directions]
    for name in names or []:
        if name not in known:
            raise UserError(f"{option}: there is no direction {name!r}; the file has {', '.join(known)}")
    selected = [each for name in dict.fromkeys(names or known) for each in directions if each.name == name]
    if not selected:
        raise UserError("the file has no directions; `flows steer find` writes some")
    if len({each.space for each in selected}) != 1:
        raise UserError("the directions are in several spaces; choose those of one space by --names")
    return selected


def split_directions(
    known: list[Direction],
    names: list[str] | None,
    without: list[str] | None,
    rest: list[Direction] | None = None,
) -> tuple[list[Direction], list[Direction]]:
    """Directions with the given names, and those to which they are to be made orthogonal.

    Args:
        known: Directions of the file.
        names: Names of the directions; None takes all.
        without: Names of the directions to which the others are to be made orthogonal.
        rest: Directions among which those of `without` are; None takes `known`.

    Raises:
        UserError: There is no direction of a name, or none is left beside those of `without`.
    """
    fixed = select_directions(known if rest is None else rest, without, "--without") if without else []
    selected = [
        each
        for each in select_directions(known, names)
        if rest is not None or each.name not in (without or [])
    ]
    if not selected:
        raise UserError("--without: no other direction is left")
    return selected, fixed
