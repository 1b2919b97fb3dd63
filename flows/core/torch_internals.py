"""Private functions and classes of torch, which may change in any release, in one place.

`tests/core/test_torch_internals.py` names every one of them, so that a release that changes one fails there.
"""

from collections.abc import Iterable
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["BatchNorm", "TorchDispatchMode"]


def transforms_are_active() -> bool:
    """Whether a transform of torch.func (vmap, grad, jvp) is active."""
    return bool(torch._C._are_functorch_transforms_active())


def forward_mode_is_active() -> bool:
    """Whether a level of forward-mode differentiation is open."""
    return torch.autograd.forward_ad._current_level >= 0


def any_hooked(modules: Iterable[nn.Module]) -> bool:
    """Whether a hook is registered on one of these modules themselves."""
    return any(
        module._forward_hooks
        or module._forward_pre_hooks
        or module._backward_hooks
        or module._backward_pre_hooks
        for module in modules
    )


def children(module: nn.Module) -> list[nn.Module]:
    """Direct submodules; faster than `module.children()`, which looks for duplicates."""
    return [child for child in module._modules.values() if child is not None]


def is_random(module: nn.Module) -> bool:
    """Whether a layer is a dropout that drops something."""
    return isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0


def tracks_statistics(module: nn.Module) -> bool:
    """Whether a layer is a normalisation of torch that updates running statistics."""
    return isinstance(module, nn.modules.batchnorm._NormBase) and bool(module.track_running_stats)


@cache
def passes_borders() -> bool:
    """Whether `clamp` passes gradients at the bounds themselves, as it did in older versions of torch."""
    with torch.inference_mode(False), torch.enable_grad():
        x = torch.ones(1, device="cpu", requires_grad=True)
        return bool(torch.autograd.grad(x.clamp(-1, 1).sum(), x)[0])


def hardtanh_backward(grad: Tensor, x: Tensor, low: float, high: float) -> Tensor:
    """Gradient of x, given that of x clamped to [low, high]."""
    if passes_borders():
        low = float(torch.nextafter(x.new_tensor(low), x.new_tensor(-torch.inf)))
        high = float(torch.nextafter(x.new_tensor(high), x.new_tensor(torch.inf)))
    return torch.ops.aten.hardtanh_backward(grad, x, low, high)


def through_relu(grad: Tensor, output: Tensor) -> None:
    """Set `grad` to zero, in place, where the output of the ReLU is zero."""
    torch.ops.aten.threshold_backward.grad_input(grad, output, 0.0, grad_input=grad)
