"""Loader of micro-batches, with processes that end whenever the training ends."""

import multiprocessing
import signal
from collections.abc import Generator, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from flows.data.base import Batch, Split
from flows.data.decode import DecodedSplit
from flows.errors import UserError

JOIN_SECONDS = 5.0
"""Seconds after which a loader process that does not end by itself is killed."""


def loaded_batches(split: Split, sampler: Sampler[list[int]], workers: int) -> Generator[Batch]:
    """Batches of a sampler, loaded in this process or in `workers` others.

    Closing the iterator ends the processes; it has to be closed, also after an exception.

    Raises:
        UserError: A picture cannot be read, in whichever process.
    """
    loader = make_loader(split, sampler, workers)
    before = set(multiprocessing.active_children())
    batches = iter(loader)
    processes = set(multiprocessing.active_children()) - before
    try:
        for answer in batches:
            if isinstance(answer, UserError):
                raise answer
            if workers:
                batch, broken = answer
                if broken and isinstance(split, DecodedSplit):
                    split.leave_out(broken)
                yield batch
            else:
                yield answer
    finally:
        end(batches, processes)


def make_loader(split: Split, sampler: Sampler[list[int]], workers: int) -> DataLoader[Any]:
    """Create the loader of micro-batches.

    It has its own generator: otherwise building an iterator would take a number from torch's global generator
    and change all later random numbers of a resumed run.
    """
    return DataLoader(
        Answering(split) if workers else split,
        batch_sampler=sampler,
        collate_fn=_unchanged,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator().manual_seed(0),
        persistent_workers=workers > 0,
        worker_init_fn=_ignore_signals,
    )


class Answering(Dataset[Any]):
    """Split in a loader process: a batch comes with the broken pictures that the process has met so far.

    User errors are returned instead of raised, because torch raises an exception of a loader process anew
    with the whole traceback as its message.
    """

    def __init__(self, split: Split):
        self.split = split

    def __getitems__(self, indices: list[int]) -> tuple[Batch, dict[int, str]] | UserError:
        """Return a batch and the broken pictures, or the error because of which there is no batch."""
        try:
            batch = self.split.__getitems__(indices)
        except UserError as error:
            return error
        return batch, dict(self.split.broken) if isinstance(self.split, DecodedSplit) else {}


def end(batches: Iterator[Any], processes: set[Any]) -> None:
    """End the processes of a loader's iterator: by asking, and by force if they do not answer.

    The processes ignore SIGTERM (`_ignore_signals`), by which Python would end them when it exits; it would
    then wait for them forever.
    """
    if not processes:
        return
    ask = getattr(batches, "_shutdown_workers", None)
    if ask is not None:
        ask()
    for process in processes:
        process.join(JOIN_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()


def _unchanged(batch: Any) -> Any:
    """Return the batch unchanged: a split returns whole batches, so there is nothing to collate."""
    return batch


def _ignore_signals(_: int) -> None:
    """Ignore signals in a loader process: launchers signal the whole group, and the main process decides."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
