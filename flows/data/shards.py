"""Tar shards in WebDataset's format: data sets larger than the disk, read as a stream.

The other data sets have random access. A stream has not, so `Shards` provides its training images by
`stream` instead of `split`. Validation and test images are few and are held in memory.
"""

import io
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flows.bounds import Bins, PositiveInt, Seed
from flows.data.base import ArraySplit, Batch, SplitName, StreamedData
from flows.data.decode import EXTENSIONS, decode, named, square, square_transform
from flows.errors import DataMissing, UserError, missing_extra
from flows.files import reading

__all__ = ["Shards"]

Sample = dict[str, Any]


class Shards(StreamedData):
    """Tar shards in WebDataset's format, with pictures, and labels in .cls files.

    A pattern with braces names the shards, for example /data/train-{000000..000146}.tar; webdataset also
    reads addresses that begin with http: or pipe:.

    Args:
        train: Pattern of the training shards.
        validation: Pattern of the validation shards.
        test: Pattern of the test shards.
        size: Side of the square images in pixels; other pictures are centre-cropped and resized.
        channels: Number of channels, 3 for RGB, 1 for grey.
        limit: Maximum number of images read for validation and for test.
        seed: Seed of the order of the shards.
        bins: Number of grey levels that a model distinguishes; 32 for 5-bit images.
    """

    name = "shards"

    def __init__(
        self,
        train: str,
        validation: str,
        test: str,
        size: PositiveInt = 32,
        channels: Literal[1, 3] = 3,
        limit: PositiveInt = 10_000,
        seed: Seed = 0,
        bins: Bins = 256,
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
        """Yield this rank's training images from number `start` on; see `ShardStream.stream`."""
        shards = expand(self.patterns["train"])
        return ShardStream(shards, self.size, self.channels, self.seed).stream(start, rank, world)

    def split(self, name: SplitName) -> ArraySplit:
        """Return the first `limit` images of the validation or test shards, in their order.

        Raises UserError for "train", whose images are a stream.
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
    """Endless stream of single images, the same in every run, divided among ranks.

    One epoch consists of all shards in an order that depends on the seed and the epoch, each shard from its
    first to its last sample; write the samples into the shards in random order. Image g of the stream has
    key g and goes to rank g mod world, so that the images seen do not depend on the number of ranks. Every
    rank reads all shards and decodes its own images only: reading is cheap compared with decoding, and no
    rank runs out before the others.

    Args:
        shards: Addresses of the tar files.
        size: Side of the square images in pixels.
        channels: Number of channels, 3 for RGB, 1 for grey.
        seed: Seed of the order of the shards.
    """

    def __init__(self, shards: tuple[str, ...], size: PositiveInt, channels: int, seed: Seed = 0):
        self.shards = shards
        self.size = size
        self.channels = channels
        self.seed = seed

    def stream(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Yield this rank's images from number `start` of the whole stream on.

        For a start above zero, the samples of every shard are counted first, once per object, which reads all
        shards without decoding. Whole epochs and shards are then skipped unread; samples before `start` in
        its shard are read but not decoded.
        """
        position, samples = self._from(start)
        for key, sample in zip(count(position), samples, strict=False):
            if key >= start and key % world == rank:
                pixels, label = decode_sample(sample, self.size, self.channels)
                yield Batch(pixels[None], torch.tensor([label]), torch.tensor([key]))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Number of samples in every shard."""
        sizes = tuple(sum(1 for _ in read_shard(shard)) for shard in self.shards)
        if not sum(sizes):
            raise UserError(f"no samples in {', '.join(self.shards)}")
        return sizes

    def order(self, epoch: int) -> list[int]:
        """Return the indices of the shards in the order of an epoch."""
        return np.random.default_rng([self.seed, epoch]).permutation(len(self.shards)).tolist()

    def _from(self, start: int) -> tuple[int, Iterator[Sample]]:
        """Number of the first sample of the shard that holds `start`, and all samples from there on."""
        if start == 0:
            return 0, self._samples(epoch=0, shard=0)
        epoch, rest = divmod(start, sum(self.sizes))
        ends = list(accumulate(self.sizes[i] for i in self.order(epoch)))
        shard = next(i for i, end in enumerate(ends) if end > rest)
        before = ends[shard - 1] if shard else 0
        return start - rest + before, self._samples(epoch, shard)

    def _samples(self, epoch: int, shard: int) -> Iterator[Sample]:
        """Samples from the shard at position `shard` of an epoch on, without end."""
        while True:
            has_samples = False
            for index in self.order(epoch)[shard:]:
                for sample in read_shard(self.shards[index]):
                    has_samples = True
                    yield sample
            if not has_samples and not shard:
                raise UserError(f"no samples in {', '.join(self.shards)}")
            epoch, shard = epoch + 1, 0


# Tar files ----------------------------------------------------------------------------------------


def expand(pattern: str) -> tuple[str, ...]:
    """Expand a pattern with braces to addresses."""
    try:
        from webdataset.shardlists import expand_urls
    except ImportError as error:
        raise missing_webdataset(error) from error
    return tuple(expand_urls(pattern))


def read_shard(url: str) -> Iterator[Sample]:
    """Yield the samples of one tar file in order: extension to content, __key__ to name."""
    try:
        from webdataset.gopen import gopen
        from webdataset.tariterators import group_by_keys, tar_file_expander
    except ImportError as error:
        raise missing_webdataset(error) from error
    try:
        opened = gopen(url)
    except FileNotFoundError as error:
        raise DataMissing(f"no shard at {url}; set data.train, data.validation, data.test") from error
    except ValueError as error:  # an address of a kind that webdataset does not know
        raise UserError(f"{url}: expected a path or an address of a shard ({error})") from error
    with opened as stream:
        samples = group_by_keys(tar_file_expander([{"url": url, "stream": stream}]))
        while True:
            with reading(Path(url), "tar file"):
                sample = next(samples, None)
            if sample is None:
                return
            yield sample


def missing_webdataset(error: ImportError) -> DataMissing:
    """Return the error for a missing package webdataset."""
    return missing_extra("tar shards need the package `webdataset`", "data", error)


def decode_sample(sample: Sample, size: int, channels: int) -> tuple[Tensor, int]:
    """Return the image, uint8 (channels, size, size), and the label of a sample, −1 if it has none."""
    content = next((sample[key] for key in sample if f".{key}" in EXTENSIONS), None)
    if content is None:
        extensions = ", ".join(key for key in sample if not key.startswith("__"))
        raise UserError(f"{sample['__url__']}: {sample['__key__']} has {extensions}, but no picture")
    name = f"{sample['__url__']}: {sample['__key__']}"
    with named(name):
        picture = decode(io.BytesIO(content))
    try:
        label = int(sample.get("cls", -1))
    except ValueError as error:
        raise UserError(f"{name} cannot be decoded: cls is no class number ({error})") from error
    return square(picture, size, channels), label
