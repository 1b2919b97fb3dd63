"""Tar shards in WebDataset's format: data sets larger than the disk, read as a stream.

The other data sets have random access. A stream has not, so `Shards` provides its training images by
`stream` instead of `split`. Validation and test images are few and are held in memory.
"""

import io
import warnings
from collections.abc import Iterator
from functools import cached_property
from itertools import accumulate, count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from flows.core.bounds import Bins, ImageSize, PositiveInt, Seed
from flows.data.base import ArraySplit, Batch, Split, SplitName, StreamedData, digest_of
from flows.data.decode import BrokenPicture, decode_resized, left_out, resize_transform, sides
from flows.data.formats import is_picture
from flows.errors import DataMissing, UserError, missing_extra
from flows.storage.files import reading

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
        size: Side of the square images in pixels, or height and width; other pictures are centre-cropped and
            resized.
        channels: Number of channels, 3 for RGB, 1 for grey.
        limit: Maximum number of images read for validation and for test.
        seed: Seed of the order of the shards.
        bins: Number of grey levels that a model distinguishes; 32 for 5-bit images.
    """

    name = "shards"
    path_arguments = ("train", "validation", "test")

    def __init__(
        self,
        train: str,
        validation: str,
        test: str,
        size: ImageSize = 32,
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
        self.image_shape = (channels, *sides(size))
        self.transform = resize_transform(size, channels)

    def stream(self, start: int = 0, rank: int = 0, world: int = 1) -> Iterator[Batch]:
        """Yield this rank's training images from number `start` on; see `ShardStream.stream`."""
        shards = expand(self.patterns["train"])
        return ShardStream(shards, self.size, self.channels, self.seed).stream(start, rank, world)

    def opened(self) -> dict[SplitName, Split]:
        """Open the validation and test splits, after a look at all local shards.

        Raises:
            DataMissing: A shard is missing.
            UserError: A shard is cut off: it has no end mark, or ends within a member.
        """
        for pattern in self.patterns.values():
            for url in expand(pattern):
                check_whole(url)
        return super().opened()

    def stream_digest(self) -> str:
        """SHA-256 of the addresses of the training shards, and of the sizes of those on this machine."""
        urls = expand(self.patterns["train"])
        sizes = [Path(url).stat().st_size if Path(url).is_file() else -1 for url in urls]
        return digest_of(len(urls), (*(Path(url).name for url in urls), *sizes))

    def split(self, name: SplitName) -> ArraySplit:
        """Return the first `limit` images of the validation or test shards, in their order.

        Raises UserError for "train", whose images are a stream.
        """
        if name == "train":
            raise UserError("the training images of Shards are a stream; use Shards.stream()")
        samples = (s for url in expand(self.patterns[name]) for s in read_shard(url))
        broken = LeftOut()
        read = (sound_sample(s, self.size, self.channels, broken) for s in islice(samples, self.limit))
        pairs = [pair for pair in read if pair is not None]
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
    rank runs out before the others. In place of a broken picture stands the next sound one of the stream.

    Args:
        shards: Addresses of the tar files.
        size: Side of the square images in pixels, or height and width.
        channels: Number of channels, 3 for RGB, 1 for grey.
        seed: Seed of the order of the shards.
    """

    def __init__(self, shards: tuple[str, ...], size: ImageSize, channels: int, seed: Seed = 0):
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
        broken = LeftOut()
        waiting: list[int] = []
        for key, sample in zip(count(position), samples, strict=False):
            own = key >= start and key % world == rank
            if not own and not waiting:
                continue
            waiting += [key] if own else []
            pair = sound_sample(sample, self.size, self.channels, broken)
            if pair is None and len(waiting) > LeftOut.MOST and len(waiting) > sum(self.sizes):
                raise UserError(f"no sound picture in {', '.join(self.shards)}")
            if pair is not None:
                for each in waiting:
                    yield Batch(pair[0][None], torch.tensor([pair[1]]), torch.tensor([each]))
                waiting = []

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


END = bytes(1024)
"""Two blocks of zeros, with which every tar file ends."""


def check_whole(url: str) -> None:
    """Raise UserError if a shard on this machine is missing or was cut off, also between two members.

    Compressed shards and those of other machines are checked when they are read.
    """
    path = Path(url)
    if ":" in url and not path.exists():
        return
    if not path.is_file():
        raise missing_shard(url)
    if path.suffix != ".tar":
        return
    with open(path, "rb") as opened:
        opened.seek(max(0, path.stat().st_size - len(END)))
        if opened.read() != END:
            raise UserError(f"{path} is cut off: it has no end mark, as every tar file has; fetch it again")


def missing_shard(url: str) -> DataMissing:
    """Return the error for a shard that does not exist."""
    return DataMissing(f"no shard at {url}; set data.train, data.validation, data.test")


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
        raise missing_shard(url) from error
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


class LeftOut:
    """Broken pictures of shards, named once each, with a count.

    Attributes:
        MOST: Number of broken pictures in a row above which a stream is counted.
    """

    MOST = 1000

    def __init__(self) -> None:
        self.names: set[str] = set()

    def add(self, name: str, why: str) -> None:
        """Note a broken picture, and warn if it is new."""
        if name not in self.names:
            self.names.add(name)
            warnings.warn(left_out(name, why, len(self.names)), stacklevel=2)


def sound_sample(
    sample: Sample, size: ImageSize, channels: int, broken: LeftOut
) -> tuple[Tensor, int] | None:
    """Image and label of a sample, as `decode_sample` returns them; None if the picture is broken."""
    try:
        return decode_sample(sample, size, channels)
    except BrokenPicture as error:
        broken.add(f"{sample['__url__']}: {sample['__key__']}", str(error))
        return None


def decode_sample(sample: Sample, size: ImageSize, channels: int) -> tuple[Tensor, int]:
    """Return the image, uint8 (channels, *sides(size)), and the label of a sample, −1 if it has none.

    Raises:
        BrokenPicture: The picture cannot be decoded.
        UserError: The sample has no picture, or a label that is no number.
    """
    content = next((sample[key] for key in sample if is_picture(f"picture.{key}")), None)
    if content is None:
        extensions = ", ".join(key for key in sample if not key.startswith("__"))
        raise UserError(f"{sample['__url__']}: {sample['__key__']} has {extensions}, but no picture")
    name = f"{sample['__url__']}: {sample['__key__']}"
    try:
        label = int(sample.get("cls", -1))
    except ValueError as error:
        raise UserError(f"{name} cannot be decoded: cls is no class number ({error})") from error
    return decode_resized(io.BytesIO(content), size, channels)[0], label
