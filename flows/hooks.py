"""Listening to layers, and answering in their stead."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

Hook = Callable[[Tensor], Tensor | None]
"""A layer's output to what replaces it; None leaves it."""


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """A block in which the named layers' outputs go through these functions; afterwards nothing is left.

    Raises:
        AttributeError: there is no layer of that name.
    """
    handles = []
    try:
        for name, hook in hooks.items():
            layer = model.get_submodule(name)
            handles.append(layer.register_forward_hook(lambda _, __, output, hook=hook: hook(output)))
        yield
    finally:
        for handle in handles:
            handle.remove()
