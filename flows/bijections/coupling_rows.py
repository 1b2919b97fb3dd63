"""Couplings on matrices of pixels, in place: both directions and hand-written gradients.

A matrix (P, C), P = batch·H·W, has the pixels of a batch as rows. The changed part of a coupling is a view of
some of its columns.
"""

import torch
from torch import Tensor

from flows.bijections.coupling import AdditiveCoupling, AffineCoupling
from flows.bijections.row_networks import Coupling
from flows.bijections.scales import Scale
from flows.numerics import zero_log_det
from flows.workspace import Workspace


def to_rows(x: Tensor) -> Tensor:
    """Arrange the pixels of x (batch, C, H, W) as rows (P, C), a view if x is channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def to_images(rows: Tensor, like: Tensor) -> Tensor:
    """Invert `to_rows`: a view with the batch size, height and width of `like`."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def workspace_for(x: Tensor) -> Workspace:
    """Workspace for images with the batch size, height and width of x."""
    return Workspace(x, len(x), *x.shape[2:])


def per_example(logs: Tensor | None, like: Tensor) -> Tensor:
    """Sum logs (P, c) over the pixels and columns of every example: (batch,); zeros for None."""
    return zero_log_det(like) if logs is None else logs.view(len(like), -1).sum(1)


def added(logs: Tensor | None, log_scale: Tensor | None) -> Tensor | None:
    """Add `log_scale` to the sum so far; None for couplings without scale."""
    return log_scale if logs is None or log_scale is None else logs + log_scale


def shift_and_log_scale(coupling: Coupling, output: Tensor) -> tuple[Tensor, Tensor | None]:
    """Compute (t, log s) from a network's output; log s is None for an additive coupling."""
    if isinstance(coupling, AdditiveCoupling):
        return output, None
    shift, raw = halves(coupling, output)
    return shift, coupling.scale.forward(raw.contiguous())


def halves(coupling: AffineCoupling, output: Tensor) -> tuple[Tensor, Tensor]:
    """Columns of the shift and of the raw scale, as views."""
    if coupling.interleaved:
        return output[:, 0::2], output[:, 1::2]
    shift, raw = output.chunk(2, 1)
    return shift, raw


def couple(coupling: Coupling, changed: Tensor, shift: Tensor, log_scale: Tensor | None) -> None:
    """Map x to z, in place."""
    if log_scale is None:
        changed += shift
    elif coupling.shift_first:
        changed.add_(shift).mul_(log_scale.exp())
    else:
        changed.mul_(log_scale.exp()).add_(shift)


def uncouple(coupling: Coupling, changed: Tensor, shift: Tensor, log_scale: Tensor | None) -> None:
    """Map z to x, in place."""
    if log_scale is None:
        changed -= shift
    elif coupling.shift_first:
        changed.mul_((-log_scale).exp()).sub_(shift)
    else:
        changed.sub_(shift).mul_((-log_scale).exp())


def pull_back(
    coupling: Coupling,
    changed: Tensor,
    grad: Tensor,
    grad_log_det: Tensor,
    shift: Tensor | None,
    log_scale: Tensor | None,
) -> Tensor:
    """Turn the gradient of z into that of x, in place; returns the gradient of the network's output.

    z = (x + t)·s: ∂x = ∂t = s·∂z, ∂log s = z·∂z + ∂log_det; z = x·s + t: ∂x = s·∂z, ∂t = ∂z,
    ∂log s = (z − t)·∂z + ∂log_det.

    Args:
        coupling: Coupling that mapped x to z.
        changed: Changed part of z, (P, c).
        grad: ∂z, (P, c); ∂x on return.
        grad_log_det: Gradient of the log-determinant of each pixel's example, (P, 1).
        shift: t, (P, c), needed if `needs_shift(coupling)`.
        log_scale: log s, (P, c), or None for an additive coupling.
    """
    if isinstance(coupling, AdditiveCoupling):
        return grad.contiguous()
    assert log_scale is not None
    grad_output = grad.new_empty(len(grad), 2 * grad.shape[1])
    scale: Scale = coupling.scale
    grad_shift, grad_raw = halves(coupling, grad_output)
    scaled = changed if coupling.shift_first or shift is None else changed - shift
    grad_log_scale = torch.addcmul(grad_log_det, grad, scaled)
    torch.mul(grad_log_scale, scale.slope(log_scale), out=grad_raw)
    if coupling.shift_first:
        grad_shift.copy_(grad.mul_(log_scale.exp()))
    else:
        grad_shift.copy_(grad)
        grad.mul_(log_scale.exp())
    return grad_output


def needs_shift(coupling: Coupling) -> bool:
    """Whether `pull_back` needs the shift."""
    return isinstance(coupling, AffineCoupling) and not coupling.shift_first
