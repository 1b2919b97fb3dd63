"""Weights that are worked out once: scaled kernels, folded maps and their inverses, kept while they hold."""

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

T = TypeVar("T")

_store: ContextVar[dict[Hashable, Any] | None] = ContextVar("prepared", default=None)


@contextmanager
def prepared() -> Iterator[None]:
    """A block in which no weights and no modules change, so that what depends on them alone is computed once.

        with flows.prepared():
            for code in codes:
                image = model.decode(code)

    Kept is what runs without gradients; blocks may stand in each other. Outside of such a block nothing is
    kept: torch has no sure sign that a weight was changed (`parameter.data` leaves none).
    """
    if torch.compiler.is_compiling() or _store.get() is not None:
        yield
        return
    token = _store.set({})
    try:
        yield
    finally:
        _store.reset(token)


def parts(module: nn.Module) -> list[nn.Module]:
    """The module and all within it, each once; within a `prepared` block looked up once.

    `modules()` takes 2 ms for a deep flow, a tenth of the time to encode an image.
    """
    store = None if torch.compiler.is_compiling() else _store.get()
    key = (module, "parts")
    if store is not None and key in store:
        return cast("list[nn.Module]", store[key])
    found: dict[int, nn.Module] = {}
    waiting = [module]
    while waiting:
        part = waiting.pop()
        if id(part) not in found:
            found[id(part)] = part
            waiting.extend(child for child in part._modules.values() if child is not None)
    if store is not None:
        store[key] = list(found.values())
    return list(found.values())


def once(of: object, like: Tensor, size: Hashable, compute: Callable[[], T]) -> T:
    """`compute()`, or within a `prepared` block what it returned before.

    Args:
        of: the module whose weights it depends on.
        like: an input, on whose dtype and device it depends.
        size: what else it depends on.
        compute: a function of these alone.
    """
    if torch.compiler.is_compiling() or torch.is_grad_enabled():
        return compute()
    store = _store.get()
    if store is None:
        return compute()
    key = (of, like.dtype, like.device, size)
    if key not in store:
        store[key] = compute()
    return cast(T, store[key])
