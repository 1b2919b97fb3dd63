"""Checks of arguments, with messages that name the argument and the valid values."""

import difflib
from collections.abc import Iterable, Sequence
from typing import Any, get_args

from flows.errors import UserError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?` with the closest of `known`, or an empty string if none is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_name(what: str, name: str, known: Iterable[str], listed: str) -> None:
    """Raise UserError unless a name is known, with the nearest one and the command that lists them."""
    known = list(known)
    if name not in known:
        raise UserError(f"{what}{name}: expected a name of `{listed}`.{did_you_mean(name, known)}")


def some_of(names: Sequence[str], most: int = 5) -> str:
    """List the first names and the number of the others: `a.txt, b.txt and 7 more`."""
    listed = ", ".join(names[:most])
    return f"{listed} and {len(names) - most} more" if len(names) > most else listed


def counted(names: Sequence[str], what: str) -> str:
    """Number and first names: `pictures without a row: 12 (a.jpg, b.jpg, c.jpg and 9 more)`."""
    return f"{what}: {len(names):,} ({some_of(names, 3)})"


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise UserError unless `value` is one of `choices`, a Literal type of strings."""
    known = get_args(choices)
    if value not in known:
        expected = ", ".join(map(repr, known))
        raise UserError(f"{name}: expected one of {expected}, got {value!r}.{did_you_mean(value, known)}")


def check_device(device: str, name: str = "map_location") -> None:
    """Raise UserError unless torch can hold data on `device`, for example "cpu", "cuda" or "cuda:1"."""
    import torch  # not at the top: the parser of `flows --help` imports this file

    try:
        made = torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).split("\n")[0]
        raise UserError(f"{name} {device}: torch cannot use it here ({reason})") from error
    if made.is_meta:
        raise UserError(f"{name} {device}: expected a device that holds data, such as cpu or cuda")


def check_memory(needed: float, what: str) -> None:
    """Raise UserError if the memory that is free does not suffice for `needed` bytes of `what`."""
    import psutil  # not at the top: most verbs start without it

    free = psutil.virtual_memory().available
    if needed > free:
        raise UserError(f"{what}: needs about {needed / 2**30:,.0f} GiB, and {free / 2**30:.1f} are free")


def check_seed(seed: int, name: str = "seed") -> None:
    """Raise UserError unless `seed` is one that torch's generators accept, in [0, 2⁶⁴)."""
    if not 0 <= seed < 2**64:
        raise UserError(f"{name}: expected a whole number in 0 … 2⁶⁴ − 1, got {seed}")


def check_positive(**values: int) -> None:
    """Raise UserError for the first value below 1, with its name."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name}: expected at least 1, got {value}")
