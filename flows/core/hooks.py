"""Forward hooks on named layers."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from torch import Tensor, nn

Hook = Callable[[Tensor], Tensor | None]
"""Function of a layer's output that returns a replacement, or None to leave it unchanged."""


def tree(module: nn.Module) -> str:
    """The modules inside a module, as PyTorch prints them; models themselves have a short `repr`."""
    return nn.Module.__repr__(module)


@contextmanager
def hooked(model: nn.Module, hooks: Mapping[str, Hook]) -> Iterator[None]:
    """Register hooks by layer name within the block, and remove them afterwards.

    Raises:
        AttributeError: A layer does not exist.
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
