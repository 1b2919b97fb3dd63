"""Layers initialised from the first batch: Glow's ActNorm, as a bijection and inside networks."""

import torch
from torch import Tensor, nn

from flows.core.numerics import batch_moments


class DataDependent(nn.Module):
    """Layer whose parameters are set once, explicitly, from the first batch.

    `initialise` sets them; no layer initialises itself in a forward pass. The flag `initialised` is a buffer,
    so a loaded model is not initialised again.
    """

    initialised: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("initialised", torch.tensor(False))

    def set_from(self, x: Tensor) -> None:
        """Set the parameters so that the output for this batch has mean 0 and variance 1."""
        raise TypeError(f"{type(self).__name__} does not implement set_from")


@torch.no_grad()
def initialise(module: nn.Module, *inputs: object) -> None:
    """Run `module(*inputs)` once and set every data-dependent layer from the batch that reaches it.

    Each layer is set just before its own forward pass, so the layers after it get normalised input.
    Statistics are taken over all ranks, so every rank gets the same parameters, those of the joined batch.
    Layers that are already initialised stay unchanged. Only the forward direction initialises.
    """

    def set_first(layer: nn.Module, layer_inputs: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, DataDependent)
        if not layer.initialised:
            layer.set_from(layer_inputs[0])
            layer.initialised.fill_(True)

    waiting = [layer for layer in module.modules() if isinstance(layer, DataDependent)]
    handles = [layer.register_forward_pre_hook(set_first) for layer in waiting]
    try:
        module(*inputs)
    finally:
        for handle in handles:
            handle.remove()


class ChannelAffine(DataDependent):
    """Parameters of an ActNorm: scale exp(3·logs) and bias, per channel (Glow §3.1).

    The factor 3 is `logscale_factor` in the released code; it speeds up learning of the scale. Inputs are
    (batch, C) or (batch, C, H, W).
    """

    logs_factor = 3.0

    def __init__(self, channels: int):
        super().__init__()
        self.channels = channels
        self.bias = nn.Parameter(torch.zeros(channels))
        self.logs = nn.Parameter(torch.zeros(channels))

    def set_from(self, x: Tensor) -> None:
        mean, variance = batch_moments(x.to(self.bias.dtype))
        self.bias.copy_(-mean.flatten())
        self.logs.copy_(-(variance.sqrt() + 1e-6).log().flatten() / self.logs_factor)

    def of_rank(self, dim: int) -> tuple[Tensor, Tensor]:
        """Return (bias, log-scale), shaped to broadcast against an input with `dim` axes."""
        shape = (1, -1) + (1,) * (dim - 2)
        return self.bias.view(shape), (self.logs_factor * self.logs).view(shape)
