"""The arithmetic of Glow's coupling network: as torch operations, and as one operation for CPUs.

Autograd's bookkeeping of some hundred small operations per network, and fresh memory for every large
activation and gradient, cost a CPU a third of a training step. The one operation writes in place, sums in
the order of the memory, and takes gradients by products of large matrices. What it computes is the same;
`tests/test_networks.py` compares them, second derivatives included.
"""

from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn.functional import conv2d, pad, relu, unfold

from flows.data_dependent import ChannelAffine
from flows.once import once, scratch

Weights = tuple[Tensor, Tensor | None, Tensor]
"""Weight (outputs, inputs, k, k), edge weight (outputs, 1, k, k) or None, bias (outputs,)."""


class ScaledConv(Protocol):
    """A convolution whose outputs are scaled by exp(3·logs)."""

    @property
    def weight(self) -> Tensor: ...
    @property
    def edge_weight(self) -> Tensor | None: ...
    @property
    def bias(self) -> Tensor: ...
    @property
    def logs(self) -> Tensor: ...


LOGS_FACTOR = ChannelAffine.logs_factor


def scaled_by(logs: Tensor, weight: Tensor, edge_weight: Tensor | None, bias: Tensor) -> Weights:
    """The weights times exp(3·logs) per output: cheaper than scaling the many activations."""
    gain = (LOGS_FACTOR * logs).exp()
    per_output = gain.view(-1, 1, 1, 1)
    return weight * per_output, None if edge_weight is None else edge_weight * per_output, bias * gain


def edge_conv2d(x: Tensor, weight: Tensor, edge_weight: Tensor | None, bias: Tensor) -> Tensor:
    """Convolution of x, with one more channel that is 1 on the zero padding and 0 inside.

    The marker is the same for every image, so its share of the output is computed once and added.
    """
    if edge_weight is None:
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    height, width = x.shape[2:]
    border = (edge_weight.flatten(1) @ marker_windows(x).T).view(1, -1, height, width)
    return conv2d(x, weight, bias, padding=1) + border


def marker_windows(x: Tensor) -> Tensor:
    """(H·W, 9): which of the nine neighbours of every pixel of x lie outside the image."""
    outside = pad(x.new_zeros(1, 1, *x.shape[2:]), (1, 1, 1, 1), value=1.0)
    return unfold(outside, 3)[0].T


# One operation ------------------------------------------------------------------------------------


def can_fuse(x: Tensor) -> bool:
    """Whether `fused_network` may stand in: on a CPU, outside autocast, torch.compile and torch.func."""
    return (
        not torch.compiler.is_compiling()
        and x.device.type == "cpu"
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
        and not torch.jit.is_tracing()
    )


def fused_network(x: Tensor, first: ScaledConv, second: ScaledConv, last: ScaledConv) -> Tensor:
    """last(relu(second(relu(first(x))))), each a convolution scaled by exp(3·logs).

    Args:
        x: (batch, C, H, W).
        first: 3×3, with or without a marked border.
        second: 1×1.
        last: 3×3, with or without a marked border.
    """
    parameters = (
        first.weight, first.edge_weight, first.bias, first.logs,
        second.weight, second.bias, second.logs,
        last.weight, last.edge_weight, last.bias, last.logs,
    )  # fmt: skip
    if torch.is_grad_enabled():
        return _Network.apply(x, *parameters)

    def work_out() -> tuple[Scaled, Tensor]:
        scaled = _scale(x, *parameters)
        return scaled, scaled.s1.permute(2, 3, 1, 0).reshape(-1, len(scaled.s1))

    return _run_without_graph(x, *once(first, x, x.shape[2:], work_out))


class Scaled(NamedTuple):
    """The network's weights as they meet the images: s1, s2, s3 kernels, border1 … what is added to all."""

    s1: Tensor
    border1: Tensor
    s2: Tensor
    border2: Tensor
    s3: Tensor
    border3: Tensor
    gain1: Tensor
    gain2: Tensor
    gain3: Tensor


def _scale(
    x: Tensor,
    w1: Tensor, e1: Tensor | None, b1: Tensor, l1: Tensor,
    w2: Tensor, b2: Tensor, l2: Tensor,
    w3: Tensor, e3: Tensor | None, b3: Tensor, l3: Tensor,
) -> Scaled:  # fmt: skip
    """Weights and biases times their gains, for images of the size of x."""
    gain1, gain2, gain3 = ((LOGS_FACTOR * logs).exp() for logs in (l1, l2, l3))
    windows = marker_windows(x) if e1 is not None or e3 is not None else None
    return Scaled(
        w1 * gain1.view(-1, 1, 1, 1),
        _border(windows, e1, b1) * gain1,
        w2.flatten(1) * gain2.view(-1, 1),
        b2 * gain2,
        w3 * gain3.view(-1, 1, 1, 1),
        _border(windows, e3, b3) * gain3,
        gain1,
        gain2,
        gain3,
    )


def _run(x: Tensor, scaled: Scaled) -> tuple[Tensor, Tensor, Tensor]:
    """The output, and the two hidden layers: (batch, width, H, W), and as rows."""
    hidden = conv2d(x, scaled.s1, padding=1).contiguous(memory_format=torch.channels_last)
    _add_to_rows(hidden, scaled.border1).relu_()
    wide = (_rows(hidden) @ scaled.s2.T).add_(scaled.border2).relu_()
    output = conv2d(_unrows(wide, hidden), scaled.s3, padding=1)
    output = output.contiguous(memory_format=torch.channels_last)
    return _add_to_rows(output, scaled.border3), hidden, wide


def _run_without_graph(x: Tensor, scaled: Scaled, kernel: Tensor) -> Tensor:
    """The output of `_run`, with hidden layers in memory that the next network uses again.

    Args:
        x: (batch, C, H, W).
        scaled: the weights.
        kernel: of the first convolution, (9·C, width), in the order of `_windows`.
    """
    batch, inputs, height, width = x.shape
    hidden, wide = (scratch(name, (batch * height * width, len(scaled.s2)), x) for name in ("hidden", "wide"))
    padded = pad(x.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1)).contiguous()
    around = scratch("around", (batch, height, width, 3, 3 * inputs), x).copy_(_windows(padded))
    torch.mm(around.view(-1, 9 * inputs), kernel, out=hidden)
    places = hidden if len(scaled.border1) == 1 else hidden.view(batch, -1)
    places.add_(scaled.border1.view(1, -1))
    torch.mm(hidden.relu_(), scaled.s2.T, out=wide)
    wide.add_(scaled.border2).relu_()
    output = conv2d(wide.view(batch, height, width, -1).permute(0, 3, 1, 2), scaled.s3, padding=1)
    return _add_to_rows(output.contiguous(memory_format=torch.channels_last), scaled.border3)


class _Network(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, *parameters: Any) -> Tensor:
        scaled = _scale(x, *parameters)
        output, hidden, wide = _run(x, scaled)
        ctx.save_for_backward(x, *parameters, hidden, wide, *scaled)
        return output

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors  # asked for once: a checkpoint unpacks them once
        inputs = saved[:12]
        if torch.is_grad_enabled():  # a second derivative is wanted
            return _differentiably(grad, ctx.needs_input_grad, *inputs)
        x, w1, e1, _, _, w2, _, _, w3, e3, _, _ = inputs
        hidden, wide, *scaled = saved[12:]
        s1, border1, s2, border2, s3, border3, gain1, gain2, gain3 = scaled
        windows = marker_windows(x) if e1 is not None or e3 is not None else None

        # Last convolution.
        grad = grad.contiguous(memory_format=torch.channels_last)
        grad_border = _sum_rows(grad, border3)
        grad_wide, grad_s3 = _backward_3x3(grad, wide, s3)
        last = _unscaled(grad_s3, s3, gain3, grad_border, border3, windows, e3)

        # ReLU and 1×1 convolution.
        _through_relu(grad_wide, wide)
        grad_border = grad_wide.sum(0, keepdim=True)
        grad_s2 = grad_wide.T @ _rows(hidden)
        grad_hidden = _unrows(grad_wide @ s2, hidden)
        grad_w2, _, *second = _unscaled(grad_s2, s2, gain2, grad_border, border2.view(1, -1), None, None)

        # ReLU and first convolution.
        _through_relu(grad_hidden, hidden)
        grad_border = _sum_rows(grad_hidden, border1)
        grad_x, grad_s1, _ = torch.ops.aten.convolution_backward(
            grad_hidden, x, s1, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
            [ctx.needs_input_grad[0], True, False],
        )  # fmt: skip
        first = _unscaled(grad_s1, s1, gain1, grad_border, border1, windows, e1)
        return grad_x, *first, grad_w2.view_as(w2), *second, *last


def _differentiably(
    grad: Tensor, needed: tuple[bool, ...], x: Tensor, *parameters: Any
) -> tuple[Tensor | None, ...]:
    """The gradients by autograd, with a graph of their own."""
    w1, e1, b1, l1, w2, b2, l2, w3, e3, b3, l3 = parameters
    h = relu(edge_conv2d(x, *scaled_by(l1, w1, e1, b1)))
    h = relu(edge_conv2d(h, *scaled_by(l2, w2, None, b2)))
    output = edge_conv2d(h, *scaled_by(l3, w3, e3, b3))
    inputs = [x, *parameters]
    asked = [value for value, need in zip(inputs, needed, strict=True) if need and value is not None]
    found = iter(torch.autograd.grad(output, asked, grad, create_graph=True, allow_unused=True))
    return tuple(
        next(found) if need and value is not None else None
        for value, need in zip(inputs, needed, strict=True)
    )


# Its pieces ---------------------------------------------------------------------------------------


def _rows(x: Tensor) -> Tensor:
    """The pixels of a channels-last x (batch, C, H, W) as the rows of a matrix (batch·H·W, C), a view."""
    return x.permute(0, 2, 3, 1).view(-1, x.shape[1])


def _unrows(rows: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_rows`, at the places of `like`."""
    batch, _, height, width = like.shape
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)


def _windows(padded: Tensor) -> Tensor:
    """The 3×3 places around every pixel of (batch, H + 2, W + 2, C): (batch, H, W, 3, 3·C), a view."""
    batch, height, width, channels = padded.shape
    image, row, column, _ = padded.stride()
    return padded.as_strided((batch, height - 2, width - 2, 3, 3 * channels), (image, row, column, row, 1))


def _border(windows: Tensor | None, edge_weight: Tensor | None, bias: Tensor) -> Tensor:
    """What is added at every place whatever the image: (H·W, outputs), or (1, outputs) without a marker."""
    if edge_weight is None or windows is None:
        return bias.view(1, -1)
    return torch.addmm(bias, windows, edge_weight.flatten(1).T)


def _add_to_rows(x: Tensor, border: Tensor) -> Tensor:
    """Add a border, in place, to every image of a channels-last x."""
    rows = _rows(x)
    (rows if len(border) == 1 else rows.view(len(x), -1)).add_(border.view(1, -1))
    return x


def _sum_rows(grad: Tensor, border: Tensor) -> Tensor:
    """The gradient of a border: the sum over all images, and over all places where it has one."""
    if len(border) == 1:
        return _rows(grad).sum(0, keepdim=True)
    return _rows(grad).view(len(grad), -1).sum(0).view_as(border)


def _through_relu(grad: Tensor, output: Tensor) -> None:
    """Set `grad` to zero, in place, where the ReLU's output is."""
    torch.ops.aten.threshold_backward.grad_input(grad, output, 0.0, grad_input=grad)


def _backward_3x3(grad: Tensor, rows: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of input (as rows) and weight of a 3×3 convolution, by two products of large matrices.

    Row p of `around` holds the gradients at the nine places around p, to all of which input p has
    contributed; place d by kernel entry 8 − d. Gathering them costs little where the outputs are few.
    """
    outputs = grad.shape[1]
    around = _windows(pad(grad.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))).reshape(-1, 9 * outputs)
    kernel = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(9 * outputs, -1)
    products = (around.T @ rows).view(3, 3, outputs, -1)
    return around @ kernel, products.flip(0, 1).permute(2, 3, 0, 1)


def _unscaled(
    grad_scaled: Tensor,
    scaled: Tensor,
    gain: Tensor,
    grad_border: Tensor,
    border: Tensor,
    windows: Tensor | None,
    edge_weight: Tensor | None,
) -> tuple[Tensor, Tensor | None, Tensor, Tensor]:
    """Gradients of (weight, edge weight, bias, logs), from those of the scaled weight and border."""
    per_output = (grad_scaled * scaled).flatten(1).sum(1) + (grad_border * border).sum(0)
    grad_logs = LOGS_FACTOR * per_output
    grad_weight = grad_scaled * gain.view(-1, *[1] * (scaled.dim() - 1))
    grad_border = grad_border * gain
    grad_bias = grad_border.sum(0)
    if edge_weight is None or windows is None:
        return grad_weight, None, grad_bias, grad_logs
    return grad_weight, (grad_border.T @ windows).view_as(edge_weight), grad_bias, grad_logs
