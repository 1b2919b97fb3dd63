"""Recalibration of batch norms: averaged weights have other statistics than the weights they average."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from flows.core.torch_internals import BatchNorm
from flows.models.base import LatentModel


@torch.no_grad()
def recalibrate_batch_norm(
    model: LatentModel, generator: nn.Module, labels: Tensor, batches: int = 20, batch: int = 100
) -> None:
    """Recalibrate a generator's batch norms on fresh codes (BigGAN's standing statistics, appendix C.1).

    Args:
        model: Model in eval mode; it stays in eval mode.
        generator: Part of the model that generates images; its batch norms are recalibrated.
        labels: (n,), labels of held-out images; a class-conditional model repeats them as needed.
        batches: Number of batches of codes.
        batch: Codes per batch.
    """
    codes = model.sample_codes(batches * batch, generator=torch.Generator().manual_seed(3))
    which = labels.to(codes.device).repeat(math.ceil(len(codes) / len(labels)))[: len(codes)]
    with recalibrating(part for part in generator.modules() if isinstance(part, BatchNorm)) as norms:
        for rows in torch.arange(len(codes), device=codes.device).split(batch) if norms else ():
            model.decode(codes[rows], labels=which[rows] if model.num_classes else None)


@contextmanager
def recalibrating(norms: Iterable[BatchNorm]) -> Iterator[list[BatchNorm]]:
    """Context in which batch norms collect new statistics: a plain mean over all batches they process."""
    layers = list(norms)
    momenta = [norm.momentum for norm in layers]
    for norm in layers:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield layers
    finally:
        for norm, momentum in zip(layers, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
