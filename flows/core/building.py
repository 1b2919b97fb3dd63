"""Building of modules that a file asks for, within bounds that follow from its weights."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any, TypeVar

import psutil
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from flows.core.torch_internals import TorchDispatchMode
from flows.errors import UserError

T = TypeVar("T")

BYTES = 4
"""Bytes of a number in single precision."""
MOST_MODULES = 20_000
"""Modules that a config of one's own may ask for; the deepest published flows have some thousands."""

SPARE_NUMBERS = 2**24
"""Numbers that a constructor may create besides the weights: masks, bases, first draws."""
FACTOR = 4
"""Ratio of the numbers that a constructor may create to those of the weights, which it draws and copies."""
SPARE_MODULES, MODULES_PER_WEIGHT = 2_000, 50
"""Modules that a constructor may create: in all, and for every weight."""


class Excess(UserError):
    """A config asks for more than the weights beside it can fill."""


class Bounded(TorchDispatchMode):
    """Context in which tensors are created up to a number of elements, counted before they are created.

    Args:
        most: Maximum number of elements of all tensors together.
    """

    def __init__(self, most: int):
        super().__init__()
        self.most, self.created = most, 0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.created += created_by(str(function), args)
        if self.created > self.most:
            raise Excess(
                f"it asks for tensors of {self.created:,} numbers and more, the limit is {self.most:,}"
            )
        return function(*args, **(kwargs or {}))


def created_by(name: str, args: Sequence[Any]) -> int:
    """Number of elements that an operation creates, as far as they do not follow from its inputs.

    Args:
        name: Name of the operation, such as `aten.randn.default`.
        args: Arguments: of a creation its size, of a range its ends, of a repetition tensor and counts.
    """
    tensor = args[0] if args and isinstance(args[0], Tensor) else None
    if tensor is not None:
        return tensor.numel() * prod(map(int, args[1])) if "repeat" in name else 0
    numbers = [each for each in args if isinstance(each, int | float)]
    if "eye" in name:
        return int(prod(numbers) ** (2 / len(numbers)))
    if any(each in name for each in ("arange", "linspace", "randperm")):
        return int(max(map(abs, numbers), default=0))
    sizes = [each for each in args if isinstance(each, list | tuple)]
    return prod(sizes[0]) if sizes and all(isinstance(each, int) for each in sizes[0]) else 0


@contextmanager
def at_most_modules(most: int) -> Iterator[None]:
    """Context in which at most `most` modules are put into others."""
    count = 0

    def note(parent: nn.Module, name: str, child: nn.Module | None) -> None:
        nonlocal count
        count += 1
        if count > most:
            raise Excess(f"it asks for more than {most:,} modules")

    handle = register_module_module_registration_hook(note)
    try:
        yield
    finally:
        handle.remove()


def build_in_memory(build: Callable[[], T]) -> T:
    """Call `build`, which constructs a module, within the memory that this machine has left.

    Raises:
        UserError: The module needs more, or has more modules than can be run.
    """
    free = psutil.virtual_memory().available
    try:
        with Bounded(free // BYTES), at_most_modules(MOST_MODULES):
            return build()
    except Excess as error:
        raise UserError(
            f"the model is too large for this machine, with {free / 2**30:.1f} GiB free: {error}"
        ) from error


def build_within(weights: Mapping[str, Tensor], build: Callable[[], T]) -> T:
    """Call `build`, which constructs a module for these weights, within bounds that follow from them.

    A config from elsewhere may ask for a billion layers, or for a layer of a terabyte. The bounds are above
    what a constructor needs, and memory stays in proportion to the file.

    Raises:
        Excess: The module would be larger than the weights can fill.
    """
    numbers = sum(value.numel() for value in weights.values())
    with Bounded(FACTOR * numbers + SPARE_NUMBERS):
        with at_most_modules(SPARE_MODULES + MODULES_PER_WEIGHT * len(weights)):
            return build()
