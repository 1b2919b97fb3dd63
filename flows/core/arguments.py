"""Arguments that objects were built with, as a config has them."""

import functools
import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

from flows.core.bounds import Checked

F = TypeVar("F", bound=Callable[..., Any])
PLAIN = (str, int, float, bool, type(None))


class Recorded(Checked):
    """Base of checked classes whose objects know the arguments of their constructor."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "__init__" in vars(cls):
            cls.__init__ = _recording(cls.__init__)  # type: ignore[method-assign]

    def arguments(self) -> dict[str, Any]:
        """Arguments of the constructor by name, with the defaults of those that were not given."""
        return dict(vars(self).get("_given", {}))


def _recording(constructor: F) -> F:
    """Return a constructor that keeps its arguments; that of the class itself is called first."""

    @functools.wraps(constructor)
    def call(self: Any, *given: Any, **options: Any) -> None:
        if "_given" not in vars(self):
            try:
                bound = inspect.signature(type(self)).bind(*given, **options)
            except TypeError:
                constructor(self, *given, **options)  # Python's own message names the function
                return
            bound.apply_defaults()
            vars(self)["_given"] = dict(bound.arguments)
        constructor(self, *given, **options)

    return cast(F, call)


def config_of(made: Recorded) -> dict[str, Any] | None:
    """Class and arguments of an object as a config names them; None if an argument is no plain value."""
    given = made.arguments()
    if not is_plain(given):
        return None
    arguments = as_plain(given)
    return {"class_path": path_of(type(made)), **({"init_args": arguments} if arguments else {})}


def is_plain(value: Any) -> bool:
    """Whether a value is plain, as a file of JSON has it."""
    try:
        as_plain(value)
    except TypeError:
        return False
    return True


def path_of(cls: type) -> str:
    """Name of a class in configs: in its package if that offers it, else in its module."""
    package = cls.__module__.rpartition(".")[0]
    offered = getattr(sys.modules.get(package), cls.__qualname__, None) is cls
    return f"{package if offered else cls.__module__}.{cls.__qualname__}"


def as_plain(value: Any) -> Any:
    """Value of JSON for a plain value: paths as text, tuples as lists. Raises TypeError for others."""
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {str(key): as_plain(each) for key, each in value.items()}
    if isinstance(value, Sequence):
        return [as_plain(each) for each in value]
    raise TypeError(f"{type(value).__name__} is no plain value")
