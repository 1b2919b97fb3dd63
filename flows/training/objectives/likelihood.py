"""Maximum likelihood, the one phase that trains a flow."""

import math

import torch
from torch import Tensor, nn

from flows.data.base import Batch
from flows.metrics.likelihood import bits_per_dim
from flows.training.phase import Phase


def likelihood(model: nn.Module) -> list[Phase]:
    """Mean bits/dim of the batch, plus the penalties that the paper's recipe names."""

    def loss(batch: Batch, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        bound = model(batch.images, batch.labels, generator, batch.keys.tolist())
        dimensions = math.prod(batch.images.shape[1:])
        bits = bits_per_dim(bound.log_prob, dimensions).mean()
        logs = {"bits_per_dim": bits}
        for name, value in bound.terms.items():
            logs[f"terms/{name}"] = bits_per_dim(value, dimensions).mean()
        logs |= {f"penalties/{name}": value for name, value in bound.penalties.items()}
        return sum(bound.penalties.values(), start=bits), logs

    return [Phase("likelihood", list(model.parameters()), loss)]
