"""Batch norms of averaged weights, which have other statistics than those they were averaged from."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm as BatchNorm

from flows.models.base import LatentModel


@torch.no_grad()
def recalibrate_batch_norm(
    model: LatentModel, generator: nn.Module, labels: Tensor, batches: int = 20, batch: int = 100
) -> None:
    """Set a generator's batch norms from fresh codes (BigGAN's standing statistics, appendix C.1).

    Args:
        model: in eval mode, before and after.
        generator: its part that draws.
        labels: of held-out images; a class-conditional model goes through them again and again.
        batches: of codes.
        batch: codes in each.
    """
    codes = model.sample_codes(batches * batch, generator=torch.Generator().manual_seed(3))
    which = labels.to(codes.device).repeat(math.ceil(len(codes) / len(labels)))[: len(codes)]
    with recalibrating(part for part in generator.modules() if isinstance(part, BatchNorm)) as norms:
        for rows in torch.arange(len(codes), device=codes.device).split(batch) if norms else ():
            model.decode(codes[rows], labels=which[rows] if model.num_classes else None)


@contextmanager
def recalibrating(norms: Iterable[BatchNorm]) -> Iterator[list[BatchNorm]]:
    """A block in which batch norms take their statistics anew, a plain mean over all batches they see."""
    those = list(norms)
    momenta = [norm.momentum for norm in those]
    for norm in those:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield those
    finally:
        for norm, momentum in zip(those, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
