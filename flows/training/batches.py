"""Order of the training images, a function of the seed and the number of images shown."""

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice

import torch
from torch.utils.data import Sampler

from flows.core.numerics import combine_seeds
from flows.data.base import Batch, ImageData, StreamedData, join
from flows.errors import UserError
from flows.training.loader import loaded_batches
from flows.training.settings import Training


class ShuffledBatches(Sampler[list[int]]):
    """Endless micro-batches of indices for one rank, starting after `start` global batches.

    Every epoch is a new permutation, determined by (seed, epoch), without its last incomplete global batch.
    A global batch is divided into one contiguous share per rank, and each share into micro-batches: all ranks
    together see what a single rank would see. Resuming needs only the number of batches.

    Args:
        length: Number of images in the split.
        batch: Images per global batch.
        seed: Seed of the order.
        start: Number of global batches already shown.
        rank, world: Index of this process, and number of processes.
        accumulate: Micro-batches per step.

    Raises:
        UserError: The batch does not divide evenly, or is larger than the split.
    """

    def __init__(
        self,
        length: int,
        batch: int,
        seed: int,
        start: int = 0,
        rank: int = 0,
        world: int = 1,
        accumulate: int = 1,
    ):
        self.micro = micro_batch_size(batch, world, accumulate)
        if batch > length:
            raise UserError(
                f"training.batch: expected at most {length}, the images of the training split, got {batch}"
            )
        self.length, self.batch, self.seed, self.start = length, batch, seed, start
        self.first = rank * accumulate * self.micro
        self.accumulate = accumulate

    def __iter__(self) -> Iterator[list[int]]:
        per_epoch = self.length // self.batch
        step = self.start
        while True:
            epoch, offset = divmod(step, per_epoch)
            generator = torch.Generator().manual_seed(combine_seeds(self.seed, epoch))
            order = torch.randperm(self.length, generator=generator)
            for i in range(offset, per_epoch):
                begin = i * self.batch + self.first
                for j in range(self.accumulate):
                    yield order[begin + j * self.micro : begin + (j + 1) * self.micro].tolist()
                step += 1


def training_batches(
    data: ImageData, training: Training, steps: int, rank: int, world: int
) -> Generator[Batch]:
    """Endless micro-batches of this rank, starting after `steps` global batches.

    Closing the generator ends the loader processes.

    Raises:
        UserError: The batch does not divide evenly, or is larger than the split.
    """
    if isinstance(data, StreamedData):
        size = micro_batch_size(training.batch, world, training.accumulate)
        single = data.stream(steps * training.batch, rank, world)
        while True:
            yield join(list(islice(single, size)))
    split = data.split("train")
    sampler = ShuffledBatches(
        len(split), training.batch, training.seed, steps, rank, world, training.accumulate
    )
    with closing(loaded_batches(split, sampler, training.workers)) as batches:
        yield from batches


def fit_batch(training: Training, length: int | None, world: int) -> Training:
    """Return the settings, with a batch of at most the training split.

    Args:
        training: Settings.
        length: Number of images of the training split; None for a stream.
        world: Number of ranks.

    Raises:
        UserError: The batch does not divide evenly, or the split has not an image for every rank and
            micro-batch.
    """
    micro_batch_size(training.batch, world, training.accumulate)
    if length is None or training.batch <= length:
        return training
    parts = world * training.accumulate
    if length < parts:
        raise UserError(
            f"the training split has {length} images, fewer than {world} ranks × {training.accumulate} "
            "micro-batches; use fewer of both"
        )
    return replace(training, batch=length // parts * parts)


def first_images(data: ImageData, images: int, seed: int, rank: int, world: int) -> Batch:
    """This rank's share of the first `images` training images, for data-dependent initialisation."""
    if isinstance(data, StreamedData):
        return join(list(islice(data.stream(0, rank, world), images // world)))
    split = data.split("train")
    images = min(images, len(split)) // world * world
    return split.__getitems__(next(iter(ShuffledBatches(len(split), images, seed, 0, rank, world))))


def micro_batch_size(batch: int, world: int, accumulate: int) -> int:
    """Number of images in a micro-batch of one rank. Raises UserError if the batch does not divide evenly."""
    if batch % (world * accumulate):
        raise UserError(
            f"training.batch: {batch} images do not divide into {world} ranks × {accumulate} "
            f"micro-batches; choose a multiple of {world * accumulate}"
        )
    return batch // (world * accumulate)
