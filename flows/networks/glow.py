"""Glow's coupling network, after the released code (openai/glow, `model.f`)."""

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_unshuffle, relu

from flows.core.data_dependent import ChannelAffine
from flows.core.numerics import bounded
from flows.core.workspace import Workspace
from flows.networks.glow_rows import GlowRows, Parameters
from flows.networks.scaled import edge_conv2d, scaled_by


class ActNormConv2d(ChannelAffine):
    """Convolution, ActNorm and ReLU: max(0, (w * x + bias)·exp(3·logs)).

    Scaling the weights instead of the activations saves two passes over the output in each direction of
    training.

    Args:
        inputs, outputs: Number of channels.
        size: Side of the kernel, 3 or 1.
        edge: Whether to mark the border (3×3 only; see `scaled.edge_conv2d`).
    """

    def __init__(self, inputs: int, outputs: int, size: int, edge: bool = False):
        super().__init__(outputs)
        self.weight = nn.Parameter(0.05 * torch.randn(outputs, inputs, size, size))
        self.edge_weight = nn.Parameter(0.05 * torch.randn(outputs, 1, size, size)) if edge else None

    def set_from(self, x: Tensor) -> None:
        super().set_from(edge_conv2d(x, self.weight, self.edge_weight, torch.zeros_like(self.bias)))

    def forward(self, x: Tensor) -> Tensor:
        weights = scaled_by(self.logs, self.weight, self.edge_weight, self.bias)
        return relu(edge_conv2d(x, *weights), inplace=True)


class ZeroConv2d(nn.Module):
    """3×3 convolution with bias, times exp(3·logs), zero at initialisation.

    Couplings therefore start as the identity.
    """

    def __init__(self, inputs: int, outputs: int, edge: bool = True):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(outputs, inputs, 3, 3))
        self.edge_weight = nn.Parameter(torch.zeros(outputs, 1, 3, 3)) if edge else None
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.logs = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return edge_conv2d(x, *scaled_by(self.logs, self.weight, self.edge_weight, self.bias))


class GlowNetwork(nn.Module):
    """Coupling network: 3×3 conv, ActNorm, ReLU, 1×1 conv, ActNorm, ReLU, 3×3 zero conv.

    Args:
        inputs: Number of channels of the kept part.
        outputs: Number of channels to predict.
        width: Number of hidden channels (512 in the paper).
        edge: Whether to mark the border, as the released code does.
        context_channels: Number of channels of an image-shaped context, concatenated to the input; 0 ignores
            the context.
        input_bound: Largest magnitude of the kept part as input, which is clipped; None for no clipping.
            See `numerics.bounded`.
        dropout: Share of the hidden channels of each pixel that are set to 0 in training (Glow++,
            arXiv 1902.00275, section 4, has 0.2).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        width: int,
        edge: bool = True,
        context_channels: int = 0,
        input_bound: float | None = None,
        dropout: float = 0.0,
    ):
        super().__init__()
        self.context_channels = context_channels
        self.input_bound = input_bound
        self.first = ActNormConv2d(inputs + context_channels, width, 3, edge)
        self.second = ActNormConv2d(width, width, 1)
        self.dropout = nn.Dropout(dropout) if dropout else None
        self.last = ZeroConv2d(width, outputs, edge)

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        kept = bounded(kept, self.input_bound)
        if self.context_channels:
            assert context is not None
            kept = torch.cat([kept, context], 1)
        hidden = self.second(self.first(kept))
        return self.last(hidden if self.dropout is None else self.dropout(hidden))

    # Execution on CPUs: `execution.rows` treats pixels as matrix rows and prepares several networks at once.

    def row_kind(self) -> Hashable | None:
        """Return a key that is equal for networks that can be prepared together; None if this one cannot."""
        if self.context_channels or (self.dropout is not None and self.training):
            return None
        edges = self.first.edge_weight is not None, self.last.edge_weight is not None
        return type(self), self.first.weight.shape, self.last.weight.shape, edges, self.input_bound

    def row_parameters(self) -> Parameters:
        """Return the parameters of this network in the order that `row_networks` expects."""
        first, second, last = self.first, self.second, self.last
        return (
            first.weight,
            first.edge_weight,
            first.bias,
            first.logs,
            second.weight,
            second.edge_weight,
            second.bias,
            second.logs,
            last.weight,
            last.edge_weight,
            last.bias,
            last.logs,
        )

    def row_networks(self, parameters: Sequence[Parameters], workspace: Workspace) -> GlowRows:
        """Prepare networks with the `row_kind` of this one, given the parameters of each."""
        return GlowRows(parameters, self.input_bound, workspace)


class ConvPrior(nn.Module):
    """Zero convolution from the kept half to mean and log-std of the half split off (`split2d_prior`)."""

    def __init__(self, inputs: int, outputs: int, edge: bool = True, input_bound: float | None = None):
        super().__init__()
        self.conv = ZeroConv2d(inputs, outputs, edge)
        self.input_bound = input_bound

    def forward(self, kept: Tensor, context: Tensor | None) -> Tensor:
        return self.conv(bounded(kept, self.input_bound))


class SqueezedContext(nn.Module):
    """Network wrapper that squeezes an image-shaped context to the resolution of a squeezed input."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, kept: Tensor, context: Tensor) -> Tensor:
        return self.network(kept, pixel_unshuffle(context, 2))
