"""JSON of files, converted to the types that the code expects; errors name the faulty place.

Objects are built from values that were checked here. So an exception of a constructor is a bug, and is never
blamed on the user's file.
"""

import json
import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from flows.core.bounds import accepts, describe
from flows.errors import CheckpointError, UserError
from flows.storage.files import StrPath

LONGEST = 60
"""Maximum number of characters of a value in a message."""
NAMES = {str: "a text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
"""Names of the types in messages."""


def read_json(text: str | bytes) -> Any:
    """Parse JSON. Raises UserError, with the reason alone, if the text is not JSON."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({error})") from error


@contextmanager
def unaltered(path: StrPath) -> Iterator[None]:
    """Context that checks the contents of a file: a `UserError` becomes a `CheckpointError` with its path."""
    try:
        yield
    except UserError as error:
        raise CheckpointError(f"{path} was altered or cut off: {error}") from error


def check_version(path: StrPath, name: str, recorded: Any, newest: int, oldest: int = 1) -> None:
    """Raise CheckpointError unless this release reads the recorded version of a format, called `name`."""
    if recorded not in range(oldest, newest + 1):
        raise CheckpointError(f"{path} has {name} version {recorded}, this release of flows reads {newest}")


def parse(expected: Any, value: Any, where: str = "") -> Any:
    """Convert a value of JSON to a type.

    Where the type says so, a list becomes a tuple, an object a dataclass and a whole number a float. A value
    of a class that JSON does not have, such as a tensor, must be an instance of that class.

    Args:
        expected: Class, dataclass, `list`, `tuple` or `dict` with parameters, `Literal`, union, or `Any`.
        value: Value of JSON.
        where: Place of the value, for messages, e.g. "certificates[2]".

    Raises:
        UserError: The value has another type; the message has the place, the expected type and the value.
    """
    origin, parameters = get_origin(expected), get_args(expected)
    if expected is Any:
        return value
    if origin in (Union, types.UnionType):
        return _parse_union(parameters, value, where)
    if origin is Literal and any(value == each and type(value) is type(each) for each in parameters):
        return value
    if hasattr(expected, "_restrictions"):  # a number with bounds
        if accepts(expected, value):
            return value
        raise UserError(f"{where}: expected {describe(expected, sentence=True)}, got {_shown(value)}")
    if expected is Path:
        return Path(parse(str, value, where))
    if origin in CONTAINERS and isinstance(value, list | tuple | dict):
        return _parse_container(expected, value, where)
    if is_dataclass(expected) and isinstance(value, dict):
        return _parse_dataclass(expected, value, where)
    if origin is None and _is_instance(value, expected):
        return float(value) if expected is float else value
    raise _mismatch(expected, value, where)


def check_names(names: Sequence[str]) -> None:
    """Raise UserError for a name that no file can have, because files are called after them."""
    for name in names:
        try:
            wrong = "\0" in name or not name.encode()
        except UnicodeEncodeError:
            wrong = True
        if wrong:
            raise UserError(f"names: expected names of files, got {name!r}")


def _is_instance(value: Any, expected: type) -> bool:
    """Whether a value belongs to a class; JSON's `true` is no number, and `2` belongs to float."""
    if expected is float:
        return type(value) is float or (type(value) is int and abs(value) < 2**1000)
    return isinstance(value, expected) and (expected is bool or not isinstance(value, bool))


def _parse_union(members: tuple[Any, ...], value: Any, where: str) -> Any:
    """Convert to the first member that the value belongs to; the message is that of the first member."""
    reasons = []
    for member in members:
        try:
            return parse(member, value, where)
        except UserError as error:
            reasons.append(error)
    raise reasons[0]


CONTAINERS = (tuple, list, dict, Mapping)
"""Origins of the types with parameters that a value may be converted to."""


def _parse_container(expected: Any, value: Any, where: str) -> Any:
    origin, parameters = get_origin(expected), get_args(expected)
    if origin is tuple and isinstance(value, list | tuple):
        return _parse_tuple(parameters, value, where)
    if origin is list and isinstance(value, list):
        return [parse(parameters[0], each, f"{where}[{i}]") for i, each in enumerate(value)]
    if origin in (dict, Mapping) and isinstance(value, dict):
        return {key: parse(parameters[1], each, _at(where, key)) for key, each in value.items()}
    raise _mismatch(expected, value, where)


def _parse_tuple(parameters: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    kinds = parameters[:1] * len(value) if parameters[1:] == (...,) else parameters
    if len(kinds) != len(value):
        raise UserError(f"{where}: expected a list of {len(kinds)}, got {_shown(value)}")
    pairs = zip(kinds, value, strict=True)
    return tuple(parse(kind, each, f"{where}[{i}]") for i, (kind, each) in enumerate(pairs))


def _parse_dataclass(expected: Any, value: dict[str, Any], where: str) -> Any:
    hints = get_type_hints(expected)
    own = {each.name: each for each in fields(expected)}
    for key in value:
        if key not in own:
            raise UserError(f"{_at(where, key)}: unknown key; expected {', '.join(own)}")
    for name, each in own.items():
        if name not in value and each.default is MISSING and each.default_factory is MISSING:
            raise UserError(f"{_at(where, name)} is missing")
    return expected(**{key: parse(hints[key], each, _at(where, key)) for key, each in value.items()})


def _at(where: str, key: str) -> str:
    """Place of a key of an object, e.g. "certificates[2].error"."""
    return f"{where}.{key}" if where else key


def _mismatch(expected: Any, value: Any, where: str) -> UserError:
    return UserError(f"{where + ': ' if where else ''}expected {_name(expected)}, got {_shown(value)}")


def _name(expected: Any) -> str:
    origin = get_origin(expected) or expected
    if origin is Literal:
        return " or ".join(map(repr, get_args(expected)))
    if is_dataclass(origin) or origin in (dict, Mapping):
        return "an object"
    return "a list" if origin is tuple else NAMES.get(origin, getattr(origin, "__name__", str(origin)))


def _shown(value: Any) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
