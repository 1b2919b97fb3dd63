"""Couplings on matrices of pixels, in place, with hand-written gradients.

A matrix (P, C), P = batch·H·W, has the pixels of a batch as rows. The changed part of a coupling is a view of
some of its columns.
"""

import torch
from torch import Tensor

from flows.bijections.coupling import Coupling
from flows.bijections.forms import Terms
from flows.core.numerics import zero_log_det
from flows.core.workspace import Workspace


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


def terms_of(coupling: Coupling, output: Tensor) -> Terms:
    """Compute (t, log s) from a network's output (P, columns)."""
    shift, raw = coupling.split_output(output)
    if raw is None or coupling.scale is None:
        return Terms(shift)
    return Terms(shift, coupling.scale.forward(raw.contiguous()))


def pull_back(
    coupling: Coupling, changed: Tensor, grad: Tensor, grad_log_det: Tensor, terms: Terms
) -> Tensor:
    """Turn the gradient of z into that of x, in place; returns the gradient of the network's output.

    Args:
        coupling: Coupling that mapped x to z.
        changed: Changed part of z, (P, c).
        grad: ∂z, (P, c); ∂x on return.
        grad_log_det: Gradient of the log-determinant of each pixel's example, (P, 1).
        terms: t and log s, (P, c) each.
    """
    grad_before, grad_terms = coupling.form.pull_back(changed, terms, grad, grad_log_det)
    if coupling.scale is None or terms.log_scale is None or grad_terms.log_scale is None:
        grad_output = grad_terms.shift.contiguous()
        if grad_before is not grad:
            grad_output = grad_output.clone() if grad_output is grad else grad_output
            grad.copy_(grad_before)
        return grad_output
    grad_output = grad.new_empty(len(grad), 2 * grad.shape[1])
    grad_shift, grad_raw = coupling.split_output(grad_output)
    assert grad_raw is not None
    torch.mul(grad_terms.log_scale, coupling.scale.slope(terms.log_scale), out=grad_raw)
    grad_shift.copy_(grad_terms.shift)
    grad.copy_(grad_before)
    return grad_output
