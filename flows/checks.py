"""Checks of arguments, with messages that name the argument and the valid values."""

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from flows.errors import UserError


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ` Did you mean …?` with the closest of `known`, or an empty string if none is close."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" Did you mean {near[0]!r}?" if near else ""


def check_choice(name: str, value: str, choices: Any) -> None:
    """Raise UserError unless `value` is one of `choices`, a Literal type of strings."""
    known = get_args(choices)
    if value not in known:
        expected = ", ".join(map(repr, known))
        raise UserError(f"{name}: expected one of {expected}, got {value!r}.{did_you_mean(value, known)}")


def check_positive(**values: int) -> None:
    """Raise UserError for the first value below 1, with its name."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"{name}: expected at least 1, got {value}")
