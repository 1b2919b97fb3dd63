"""RealNVP's coupling network: a residual network with weight and batch normalisation (§3.4, appendix E)."""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from flows.core.numerics import batch_moments, bounded
from flows.memory import is_recomputing


class ShiftedBatchNorm2d(nn.Module):
    """Batch normalisation with a shift and no gain; statistics over all ranks, running ones in eval mode.

    PyTorch's SyncBatchNorm reduces over ranks on GPUs only.

    Args:
        channels: Number of channels.
        momentum: Weight of the current batch in the running statistics.
        epsilon: Constant added to the variance.
    """

    uses_batch_statistics = True
    mean: Tensor
    variance: Tensor

    def __init__(self, channels: int, momentum: float = 0.1, epsilon: float = 1e-4):
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(1, channels, 1, 1))
        self.momentum = momentum
        self.epsilon = epsilon
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("variance", torch.ones(1, channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, variance = self.mean, self.variance
        if self.training:
            mean, variance = batch_moments(x.float() if x.dtype == torch.bfloat16 else x)
            if not is_recomputing():
                with torch.no_grad():
                    self.mean.lerp_(mean, self.momentum)
                    self.variance.lerp_(variance, self.momentum)
        gain = (variance + self.epsilon).rsqrt()
        return (x * gain + (self.shift - mean * gain)).to(x.dtype)


class WeightNormConv2d(nn.Module):
    """Convolution with unit-norm filters (Salimans and Kingma 2016) and an optional gain per output.

    Without a gain a batch norm follows, which would cancel it.

    Args:
        inputs, outputs: Number of channels.
        size: Side of the kernel, 3 or 1; padded to keep the size of the image.
        gain: Whether to learn the norms of the filters.
        bias: Whether to add a bias.
    """

    def __init__(self, inputs: int, outputs: int, size: int, gain: bool = False, bias: bool = False):
        super().__init__()
        bound = math.sqrt(2 / inputs)
        direction = torch.empty(outputs, inputs, size, size).uniform_(-bound, bound)
        self.direction = nn.Parameter(direction.contiguous(memory_format=torch.channels_last))
        start = bound * math.sqrt(inputs * size * size / 12)
        self.gain = nn.Parameter(torch.full((outputs,), start)) if gain else None
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.padding = size // 2

    def forward(self, x: Tensor) -> Tensor:
        norm = self.direction.square().sum((1, 2, 3), keepdim=True).add(1e-12).sqrt()
        weight = self.direction / norm
        if self.gain is not None:
            weight = weight * self.gain.view(-1, 1, 1, 1)
        return conv2d(x, weight, self.bias, padding=self.padding)


class ResidualBlock(nn.Module):
    """Residual block x + conv(relu(norm(conv(relu(norm(x))))))."""

    def __init__(self, width: int):
        super().__init__()
        self.first_norm = ShiftedBatchNorm2d(width)
        self.first = WeightNormConv2d(width, width, 3)
        self.second_norm = ShiftedBatchNorm2d(width)
        self.second = WeightNormConv2d(width, width, 3, gain=True, bias=True)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(relu(self.first_norm(x)))
        return x + self.second(relu(self.second_norm(h)))


class RealNVPNetwork(nn.Module):
    """Residual network; the outputs of stem and blocks are summed through 1×1 skip convolutions.

    The input is batch-normalised, doubled for a checkerboard (half of it is zeros), and passed as [h, −h],
    with the mask as a further channel for a checkerboard.

    Args:
        inputs: Number of channels of the kept part.
        outputs: Number of channels to predict.
        width: Number of hidden channels.
        blocks: Number of residual blocks.
        mask: (1, 1, H, W), 1 at the kept pixels of a checkerboard; None for a split across channels.
        input_bound: Largest magnitude of the normalised input, which is clipped; None for no clipping.
            See `numerics.bounded`.
    """

    mask: Tensor | None

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        blocks: int,
        mask: Tensor | None = None,
        input_bound: float | None = None,
    ):
        super().__init__()
        self.input_bound = input_bound
        # A copy: safetensors refuses one buffer under two names.
        self.register_buffer("mask", None if mask is None else mask.clone())
        self.input_norm = ShiftedBatchNorm2d(inputs)
        self.stem = WeightNormConv2d(2 * inputs + (mask is not None), width, 3, bias=True)
        self.stem_skip = WeightNormConv2d(width, width, 1, gain=True, bias=True)
        self.blocks = nn.ModuleList(ResidualBlock(width) for _ in range(blocks))
        self.skips = nn.ModuleList(
            WeightNormConv2d(width, width, 1, gain=True, bias=True) for _ in range(blocks)
        )
        self.output_norm = ShiftedBatchNorm2d(width)
        self.output = WeightNormConv2d(width, outputs, 1, gain=True, bias=True)

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        h = bounded(self.input_norm(kept), self.input_bound)
        h = h if self.mask is None else 2 * h
        parts = [h, -h]
        if self.mask is not None:
            parts.append(self.mask.to(h.dtype).expand(len(h), 1, -1, -1))
        h = self.stem(relu(torch.cat(parts, 1)))
        total = self.stem_skip(h)
        for block, skip in zip(self.blocks, self.skips, strict=True):
            h = block(h)
            total = total + skip(h)
        return self.output(relu(self.output_norm(total)))
