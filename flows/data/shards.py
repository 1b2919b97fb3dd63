"""WebDataset's tar shards: data sets larger than the disk, read as a stream.

The other data sets here are random access. A stream cannot be, so that `Shards` gives its training
images by `stream` in place of `split`. Validation and test images are few and are held in memory.
"""

import io
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from flows.data.base import ArraySplit, Batch, SplitName, StreamedData
from flows.data.decode import BROKEN, EXTENSIONS, reason, square, square_transform
from flows.errors import DataMissing, UserError
from flows.files import reading

Sample = dict[str, Any]


class Shards(StreamedData):
    """Tar shards in WebDataset's format: pictures, and labels in files that end in .cls.

    Shards are named by a pattern with braces, as in /data/train-{000000..000146}.tar; webdataset
    also reads addresses that begin with http: or pipe:.

    Args:
        train: pattern of the training shards.
        validation: pattern of the validation shards.
        test: pattern of the test shards.
        size: side of the square images in pixels; others are centre-cropped and resized.
        channels: 3 for RGB, 1 for grey.
        limit: the number of images read, at most, for validation and for the test.
        seed: of the order of the shards.
        bins: number of grey levels a model should tell apart; 32 for 5-bit pictures.
    """

    name = "shards"

    def __init__(
        self,
        train: str,
        validation: str,
        test: str,
        size: int = 32,
        channels: Literal[1, 3] = 3,
        limit: int = 10_000,
        seed: int = 0,
        bins: int = 256,
    ):
        self.patterns: dict[SplitName, str] = {
            "train": train, "validation": validation, "test": test,
        }  # fmt: skip
        self.size = size
        self.channels = channels
        self.limit = limit
        self.seed = seed
        self.bins = bins
        self.image_shape = (channels, size, size)
        self.transform = square_transform(size, channels)

    def stream(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This rank's training images from number `start` on, without end; see `ShardStream.stream`."""
        shards = expand(self.patterns["train"])
        return ShardStream(shards, self.size, self.channels, self.seed).stream(start, rank, world)

    def split(self, name: SplitName) -> ArraySplit:
        """The first `limit` images of the validation or test shards, in their order.

        Raises ValueError for "train", whose images are a stream.
        """
        if name == "train":
            raise UserError("the training images of Shards are a stream; use Shards.stream()")
        samples = (s for url in expand(self.patterns[name]) for s in read_shard(url))
        pairs = [decode_sample(s, self.size, self.channels) for s in islice(samples, self.limit)]
        if not pairs:
            raise UserError(f"no images in the {name} shards {self.patterns[name]}")
        pixels, labels = zip(*pairs, strict=True)
        return ArraySplit(torch.stack(pixels), torch.tensor(labels))


class ShardStream:
    """An endless stream of single images, the same on every run, divided among ranks.

    One epoch is all shards in an order drawn from the seed and the number of the epoch, every shard
    from its first to its last sample; write the samples into the shards in random order. Image g of
    the stream has the key g and goes to rank g mod world, so that what is seen does not depend on
    the number of ranks. Every rank reads all shards and decodes its own images only: reading is
    cheap beside decoding, and no rank runs out before the others.

    Args:
        shards: addresses of the tar files.
        size: side of the square images in pixels.
        channels: 3 for RGB, 1 for grey.
        seed: of the order of the shards.
    """

    def __init__(self, shards: tuple[str, ...], size: int, channels: int, seed: int = 0):
        self.shards = shards
        self.size = size
        self.channels = channels
        self.seed = seed

    def stream(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """This rank's images from number `start` of the whole stream on.

        A start above zero first counts the samples of every shard, once for each object. That reads
        all shards without decoding. Whole epochs and shards are then skipped unread, and what lies
        before `start` within its shard is read and not decoded.
        """
        position, samples = self._from(start)
        for key, sample in zip(count(position), samples, strict=False):
            if key >= start and key % world == rank:
                pixels, label = decode_sample(sample, self.size, self.channels)
                yield Batch(pixels[None], torch.tensor([label]), torch.tensor([key]))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """The number of samples in every shard."""
        sizes = tuple(sum(1 for _ in read_shard(shard)) for shard in self.shards)
        if not sum(sizes):
            raise UserError(f"no samples in {', '.join(self.shards)}")
        return sizes

    def order(self, epoch: int) -> list[int]:
        """The indices of the shards in the order of that epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.shards)).tolist()

    def _from(self, start: int) -> tuple[int, Iterator[Sample]]:
        """Number of the first sample of the shard that holds `start`, and all from it on."""
        if start == 0:
            return 0, self._samples(epoch=0, shard=0)
        epoch, rest = divmod(start, sum(self.sizes))
        ends = list(accumulate(self.sizes[i] for i in self.order(epoch)))
        shard = next(i for i, end in enumerate(ends) if end > rest)
        before = ends[shard - 1] if shard else 0
        return start - rest + before, self._samples(epoch, shard)

    def _samples(self, epoch: int, shard: int) -> Iterator[Sample]:
        """The samples from the shard at place `shard` of that epoch on, without end."""
        while True:
            found = False
            for index in self.order(epoch)[shard:]:
                for sample in read_shard(self.shards[index]):
                    found = True
                    yield sample
            if not found and not shard:
                raise UserError(f"no samples in {', '.join(self.shards)}")
            epoch, shard = epoch + 1, 0


# Tar files ----------------------------------------------------------------------------------------


def expand(pattern: str) -> tuple[str, ...]:
    """The addresses that a pattern with braces stands for."""
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise missing_webdataset(error) from error
    return tuple(expand_urls(pattern))


def read_shard(url: str) -> Iterator[Sample]:
    """The samples of one tar file in its order: extension to content, __key__ to name."""
    try:
        from webdataset.gopen import gopen
        from webdataset.tariterators import group_by_keys, tar_file_expander
    except ImportError as error:
        raise missing_webdataset(error) from error
    try:
        opened = gopen(url)
    except FileNotFoundError as error:
        raise DataMissing(f"no shard at {url}; set data.train, data.validation, data.test") from error
    with opened as stream:
        samples = group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
        while True:
            with reading(Path(url), "tar file"):
                sample = next(samples, None)
            if sample is None:
                return
            yield sample


def missing_webdataset(error: ImportError) -> DataMissing:
    """The error for a machine without webdataset."""
    return DataMissing(f'tar shards need `webdataset` ({error}); `pip install -e ".[data]"` brings it')


def decode_sample(sample: Sample, size: int, channels: int) -> tuple[Tensor, int]:
    """The picture, uint8 (channels, size, size), and the label of a sample, −1 if it has none."""
    content = next((sample[key] for key in sample if f".{key}" in EXTENSIONS), None)
    if content is None:
        found = ", ".join(key for key in sample if not key.startswith("__"))
        raise UserError(f"{sample['__url__']}: {sample['__key__']} has {found}, and no picture")
    try:
        with Image.open(io.BytesIO(content)) as picture:
            return square(picture, size, channels), int(sample.get("cls", -1))
    except BROKEN as error:
        name = f"{sample['__url__']}: {sample['__key__']}"
        raise UserError(f"{name} cannot be decoded: {reason(error)}") from error
