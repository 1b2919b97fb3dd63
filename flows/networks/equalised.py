"""Layers with an equalised learning rate (Karras et al. 2018, arXiv 1710.10196, section 4.1)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, linear

LEAKY_GAIN = math.sqrt(2)
"""Gain that approximately preserves the variance through a leaky ReLU of slope 0.2."""


class EqualisedLinear(nn.Module):
    """Linear layer with weights ~ N(0, 1)/m, used as w·gain·m/√inputs.

    Adam then updates every layer at the same relative rate.

    Args:
        inputs, outputs: Number of features.
        gain: Std of the output for inputs of variance 1.
        multiplier: Factor m on the learning rate (0.01 in StyleGAN's mapping).
        bias: Initial value of all biases; None for no bias.
    """

    def __init__(
        self, inputs: int, outputs: int, gain: float = 1.0, multiplier: float = 1.0, bias: float | None = 0.0
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / multiplier)
        self.bias = None if bias is None else nn.Parameter(torch.full((outputs,), bias / multiplier))
        self.multiplier = multiplier
        self.scale = gain * multiplier / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.multiplier
        return linear(x, self.weight * self.scale, bias)


class EqualisedConv2d(nn.Module):
    """Convolution with an equalised learning rate, padded to keep the size.

    Args:
        inputs, outputs: Number of channels.
        size: Side of the kernel; odd, or even with `halve`.
        gain, multiplier: Std of the output and factor on the learning rate, as in `EqualisedLinear`.
        bias: Whether to add a bias.
        halve: Whether to halve the side by a stride of 2.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        size: int,
        gain: float = 1.0,
        bias: bool = True,
        halve: bool = False,
        multiplier: float = 1.0,
    ):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, size, size) / multiplier)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.multiplier = multiplier
        self.scale = gain * multiplier / math.sqrt(inputs * size**2)
        self.stride, self.padding = (2, size // 2 - 1) if halve else (1, size // 2)

    def forward(self, x: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias * self.multiplier
        return conv2d(x, self.weight * self.scale, bias, self.stride, self.padding)
