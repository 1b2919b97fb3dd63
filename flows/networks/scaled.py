"""Convolutions with outputs scaled by exp(3·logs) and an optional border marker (Glow's released code)."""

from torch import Tensor
from torch.nn.functional import conv2d, pad, unfold

from flows.core.data_dependent import ChannelAffine

LOGS_FACTOR = ChannelAffine.logs_factor


def scaled_by(
    logs: Tensor, weight: Tensor, edge_weight: Tensor | None, bias: Tensor
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Multiply the weights by exp(3·logs) per output, which is cheaper than scaling the activations."""
    gain = (LOGS_FACTOR * logs).exp()
    per_output = gain.view(-1, 1, 1, 1)
    return weight * per_output, None if edge_weight is None else edge_weight * per_output, bias * gain


def edge_conv2d(x: Tensor, weight: Tensor, edge_weight: Tensor | None, bias: Tensor) -> Tensor:
    """Convolve x with an additional marker channel that is 1 on the zero padding and 0 inside.

    The marker is the same for every image, so its part of the output is computed once and added.

    Args:
        x: (batch, inputs, H, W).
        weight: (outputs, inputs, k, k).
        edge_weight: (outputs, 1, 3, 3), weight of the marker, or None for no marker.
        bias: (outputs,).
    """
    if edge_weight is None:
        return conv2d(x, weight, bias, padding=weight.shape[-1] // 2)
    height, width = x.shape[2:]
    border = (edge_weight.flatten(1) @ marker_windows(x).T).view(1, -1, height, width)
    return conv2d(x, weight, bias, padding=1) + border


def marker_windows(x: Tensor) -> Tensor:
    """Mark which of the nine neighbours of every pixel of x (..., H, W) lie outside the image: (H·W, 9)."""
    outside = pad(x.new_zeros(1, 1, *x.shape[-2:]), (1, 1, 1, 1), value=1.0)
    return unfold(outside, 3)[0].T
