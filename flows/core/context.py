"""Values that hold within a block, for the code that runs in it."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def set_within(variable: ContextVar[T], value: T) -> Iterator[None]:
    """Context in which a variable has a value; it has the former one after the block, also on an error."""
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
