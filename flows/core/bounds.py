"""Bounds of numbers as types, checked by the parser of the command line and by constructors in Python.

class Walk(Method):               # Method is `Checked`
def __init__(self, steps: PositiveInt = 200, path: Literal["line", "sphere"] = "line"): ...

--method.steps 0                  # --method.steps: expected a whole number above 0, got 0
Walk(steps=0)                     # UserError: steps: expected a whole number above 0, got 0
"""

import functools
import inspect
import math
import numbers
import os
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import ge, gt, le, lt
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, cast, get_args, get_origin

from flows.core.checks import did_you_mean
from flows.errors import UserError

__all__ = [
    "Bins",
    "Checked",
    "FiniteFloat",
    "ImageShape",
    "ImageSize",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "PositiveShare",
    "Seed",
    "Share",
    "ShareBelowHalf",
    "ShareBelowOne",
    "Side",
    "Temperature",
    "checked",
    "plain",
]

LARGEST = 2**31
"""Bound of counts: torch and operating systems count in 63 bits, and memory ends long before."""

if TYPE_CHECKING:
    from typing import TypeAlias

    Bins: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    PositiveInt: TypeAlias = int
    Side: TypeAlias = int
    Seed: TypeAlias = int
    ImageShape: TypeAlias = Sequence[int]
    ImageSize: TypeAlias = int | tuple[int, int]
    FiniteFloat: TypeAlias = float
    NonNegativeFloat: TypeAlias = float
    PositiveFloat: TypeAlias = float
    PositiveShare: TypeAlias = float
    Share: TypeAlias = float
    ShareBelowHalf: TypeAlias = float
    ShareBelowOne: TypeAlias = float
    Temperature: TypeAlias = float
else:
    from jsonargparse.typing import ClosedUnitInterval as Share
    from jsonargparse.typing import OpenUnitInterval as PositiveShare
    from jsonargparse.typing import restricted_number_type

    FiniteFloat = restricted_number_type("FiniteFloat", float, [(">", -math.inf), ("<", math.inf)])
    NonNegativeFloat = restricted_number_type("NonNegative", float, [(">=", 0), ("<", math.inf)])
    NonNegativeInt = restricted_number_type("NonNegativeCount", int, [(">=", 0), ("<", LARGEST)])
    PositiveFloat = restricted_number_type("Positive", float, [(">", 0), ("<", math.inf)])
    PositiveInt = restricted_number_type("PositiveCount", int, [(">", 0), ("<", LARGEST)])
    Side = restricted_number_type("Side", int, [(">", 0), ("<=", 2**13)])
    Bins = restricted_number_type("Bins", int, [(">=", 2), ("<=", 256)])
    Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**63)])
    ShareBelowHalf = restricted_number_type("ShareBelowHalf", float, [(">=", 0), ("<", 0.5)])
    ShareBelowOne = restricted_number_type("ShareBelowOne", float, [(">=", 0), ("<", 1)])
    Temperature = NonNegativeFloat
    ImageShape = tuple[PositiveInt, PositiveInt, PositiveInt]
    ImageSize = Side | tuple[Side, Side]

F = TypeVar("F", bound=Callable[..., Any])
BOUNDS = {gt: (">", "above"), ge: ("≥", "of at least"), lt: ("<", "below"), le: ("≤", "of at most")}
"""Comparisons of restricted numbers: sign in a help text, words in a sentence."""


class Checked:
    """Base of classes whose methods check their arguments; see `checked`.

    Attributes:
        checked_methods: Names of the methods, in the class and in its subclasses.
    """

    checked_methods: ClassVar[tuple[str, ...]] = ("__init__",)

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        for name in cls.checked_methods:
            if name in vars(cls):
                setattr(cls, name, checked(vars(cls)[name]))

    def __post_init__(self) -> None:
        """Check the fields of a dataclass, whose constructor is generated after `__init_subclass__`."""
        hints = typing.get_type_hints(type(self))
        for name, value in vars(self).items():
            check_value(name, value, hints.get(name, Any))


def checked(function: F) -> F:
    """Check the arguments of a function against its annotations: bounds of numbers, words of literals.

    Other annotations are not checked. The decorated function raises UserError, which has the argument's name,
    the expected values and the one that was given.
    """

    @functools.wraps(function)
    def call(*given: Any, **options: Any) -> Any:
        signature, hints = _annotations(function)
        try:
            bound = signature.bind(*given, **options)
        except TypeError:
            return function(*given, **options)  # Python's own message names the function
        for name, value in bound.arguments.items():
            check_value(name, value, hints.get(name, Any))
        return function(*given, **options)

    return cast(F, call)


@functools.cache
def _annotations(function: Callable[..., Any]) -> tuple[inspect.Signature, dict[str, Any]]:
    return inspect.signature(function), typing.get_type_hints(function)


def plain(value: Any) -> Any:
    """Replace numbers of the types with bounds, which the parser makes, by Python's own, also in containers.

    A state of training holds such numbers, and torch loads no other types.
    """
    if hasattr(value, "_restrictions"):
        return int(value) if isinstance(value, int) else float(value)
    if type(value) in (list, tuple):
        return type(value)(map(plain, value))
    return {key: plain(each) for key, each in value.items()} if type(value) is dict else value


def check_value(name: str, value: Any, kind: Any) -> None:
    """Raise UserError if a value is outside the bounds or words of its type."""
    if not accepts(kind, value):
        raise UserError(f"{name}: {refusal(kind, value, repr(value))}")


def refusal(kind: Any, value: Any, shown: str) -> str:
    """Sentence about a value that is not of a type: `expected a number above 0, or null; got 'abc'`.

    Args:
        kind: Type that was expected.
        value: Value that was given; for a text, the closest word that the type allows is suggested.
        shown: Value as the sentence shows it.
    """
    hint = did_you_mean(value, choices_of(kind)) if isinstance(value, str) else ""
    words = describe(kind, sentence=True)
    sign, stop = ";" if "," in words else ",", "." if hint else ""
    return f"expected {words}{sign} got {shown}{stop}{hint}"


def accepts(kind: Any, value: Any) -> bool:
    """Whether a value is within the bounds or words of a type; true for types that have neither."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(accepts(member, value) for member in members)
    if origin is Literal:
        return value in members
    if kind is NoneType:
        return value is None
    if bounds := getattr(kind, "_restrictions", None):
        return _is_number(kind, value) and all(test(value, limit) for test, limit in bounds)
    if not _is_bounded(members) or not isinstance(origin, type) or not issubclass(origin, Sequence):
        return True
    if isinstance(value, str) or not isinstance(value, Sequence):
        return False
    kinds = members[:1] * len(value) if origin is not tuple or Ellipsis in members else members
    return len(kinds) == len(value) and all(map(accepts, kinds, value))


def _is_number(kind: type, value: Any) -> bool:
    """Whether a value is a number of the kind; a whole number is a number, a truth value is none."""
    number = numbers.Integral if issubclass(kind, int) else numbers.Real
    return isinstance(value, number) and not isinstance(value, bool)


def _is_bounded(members: tuple[Any, ...]) -> bool:
    """Whether a type among the parameters of a container has bounds or words."""
    return any(
        get_origin(member) is Literal or hasattr(member, "_restrictions") or _is_bounded(get_args(member))
        for member in members
    )


# Words --------------------------------------------------------------------------------------------


def describe(kind: Any, sentence: bool = False) -> str:
    """Describe a type in plain words: `number > 0, or null`; in a sentence: `a number above 0, or null`."""
    origin, members = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        others = " or ".join(describe(member, sentence) for member in members if member is not NoneType)
        return others + (", or null" if NoneType in members else "")
    if origin is Literal:
        return f"one of {', '.join(map(str, members))}"
    if kind in (bool, Any, NoneType):
        return {bool: "true or false", Any: "any value", NoneType: "null"}[kind]
    article = "a " if sentence else ""
    base = origin or kind
    if not isinstance(base, type):
        return str(kind)
    if issubclass(base, int | float):
        return f"{article}{_describe_number(base, sentence)}"
    if issubclass(base, str):
        return "text"
    if issubclass(base, os.PathLike):
        return f"{article}path"
    if issubclass(base, Mapping):
        return f"{article}mapping"
    if issubclass(base, Iterable) and members:
        count = "" if base is not tuple or Ellipsis in members else f" of {len(members)}"
        return f"{article}list{count}, each {describe(members[0], sentence=True)}"
    return f"{'the ' if sentence else ''}name of a class"


def _describe_number(base: type, sentence: bool) -> str:
    """Describe a class of numbers with its bounds: `whole number > 0`."""
    bounds = getattr(base, "_restrictions", ())
    # A bound that nobody would reach on purpose is no news.
    shown = [(test, limit) for test, limit in bounds if abs(limit) not in (LARGEST, math.inf)]
    limits = [f"{BOUNDS[test][sentence]} {_short(limit)}" for test, limit in shown]
    whole = "whole " if issubclass(base, int) else ""
    return f"{whole}number {' and '.join(limits)}".strip().replace("and of at", "and at")


def _short(limit: float) -> str:
    power = int(limit).bit_length() - 1
    return f"2^{power}" if power > 20 and limit == 2**power else str(limit)


def choices_of(kind: Any) -> set[str]:
    """All words that the literal types in an annotation allow."""
    if get_origin(kind) is Literal:
        return {str(choice) for choice in get_args(kind)}
    return {word for member in get_args(kind) for word in choices_of(member)}
