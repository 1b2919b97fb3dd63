"""Contract of data sets: 8-bit images in three splits, with a record of their preprocessing."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flows.core.arguments import Recorded
from flows.errors import Unsupported, UserError

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

__all__ = ["ArraySplit", "Attribute", "Batch", "ImageData", "Split", "StreamedData"]

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")
UNLABELLED = 255
"""Value of a pixel of a mask whose class is not known."""


class Batch(NamedTuple):
    """Batch of images that a loader passes to a loss.

    Attributes:
        images: uint8 (batch, C, H, W).
        labels: int64 (batch,); −1 if the data set has no labels.
        keys: int64 (batch,), identity of every image within its split. Noise is sampled by key, so that it
            does not depend on the rank or batch of an image.
        attributes: float32 (batch, number of attributes), columns of the data set's `attributes`; NaN if an
            attribute cannot be seen in the image; None if the data set has none.
        masks: uint8 (batch, H, W), class of every pixel, an index of the data set's `mask_classes`, or
            `UNLABELLED` where it is not known; None if the data set has none.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    attributes: Tensor | None = None
    masks: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`, except for its keys, which are read on the host."""
        return self.each(lambda part: part.to(device, non_blocking=True))._replace(keys=self.keys)

    def first(self, n: int) -> "Batch":
        """Return a batch of the first n images."""
        return self.each(lambda part: part[:n])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """Return a batch with `change` applied to every tensor."""
        return Batch(*(cast(Tensor, part if part is None else change(part)) for part in self))


AttributeKind = Literal["binary", "category", "real", "circular"]


@dataclass(frozen=True)
class Attribute:
    """Property of an image.

    Attributes:
        name: Name of the attribute in tools.
        kind: Type of the values: `binary`, 0 or 1; `category`, an index of `classes`; `real`, a number from
            `low` to `high`; `circular`, a number in [0, 1) whose ends meet, like a hue.
        group: Group in menus, coarse to fine; for scenes layout, category, object, attribute, artefact.
        classes: Names of the values of a category.
        low, high: Range of a real number.
    """

    name: str
    kind: AttributeKind
    group: str = "attribute"
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0


class Split(Dataset[Batch], ABC):
    """One split of a data set, with random access.

    To add one: implement `__len__` and `__getitems__`. `attributes` and `masks` are those of all images, as
    in `Batch` except for the dtype of the attributes, or None; `names` are those of their files, or None.
    """

    attributes: Tensor | None = None
    masks: Tensor | None = None
    names: Sequence[str] | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, indices: list[int]) -> Batch:
        """Return a batch of the images with these indices, in this order."""

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def name_of(self, index: int) -> str:
        """Name of an image in messages: that of its file, or its number in the split."""
        return f"image {index}" if self.names is None else self.names[index]

    def digest(self) -> str:
        """SHA-256 of what identifies the images of the split: here their number and names."""
        return digest_of(len(self), self.names)

    def batch(self, images: Tensor, labels: Tensor, keys: Tensor) -> Batch:
        """Return a batch of these images of the split with their attributes and masks."""
        attributes = None if self.attributes is None else self.attributes[keys].float()
        return Batch(images, labels, keys, attributes, None if self.masks is None else self.masks[keys])

    def first(self, n: int | None) -> Batch:
        """Return the first `n` images of the split (all if `n` is None) as one batch."""
        return self.__getitems__(list(range(len(self) if n is None else min(n, len(self)))))


class ArraySplit(Split):
    """Split held in memory as uint8, decoded once."""

    def __init__(
        self,
        images: Tensor,
        labels: Tensor | None = None,
        attributes: Tensor | None = None,
        names: Sequence[str] | None = None,
        masks: Tensor | None = None,
    ):
        self.images = images
        self.labels = labels if labels is not None else torch.full((len(images),), -1)
        self.attributes, self.masks = attributes, masks
        self.names = names

    def digest(self) -> str:
        """SHA-256 of number, names, pixels, labels, attributes and masks."""
        parts = (self.images, self.labels, self.attributes, self.masks)
        return digest_of(len(self), self.names, *contents_of(*parts))

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        keys = torch.as_tensor(indices)
        return self.batch(self.images[keys], self.labels[keys], keys)


@dataclass(frozen=True)
class Description:
    """Record of the data of a model, stored with its weights; bits/dim have no meaning without it."""

    name: str
    image_shape: tuple[int, int, int]
    bins: int
    transform: str
    class_names: tuple[str, ...] = ()


class ImageData(Recorded, ABC):
    """Data set of uint8 images.

    To add one: write a class with the attributes below and `split` in a new file of this package. A config
    may set the arguments of its constructor; all except paths have defaults. Nothing is read before `split`
    is called, except what the attributes need.

    Attributes:
        name: Short name for tables.
        image_shape: (C, H, W), shape of the images.
        bins: Number of grey levels that a model distinguishes (256 for 8-bit images).
        transform: Processing of the original pixels in one line, "none" if there was none.
        class_names: Names of the labels, empty if there are none.
        attributes: Attributes in the columns of `Split.attributes`.
        mask_classes: Names of the values of `Split.masks`.
        can_rerender: Whether `rerender` is supported.
        menu: Names of the scores that tools offer first, and that an atlas steers.
        menu_classes: Names of the mask classes that tools offer first.
        menu_groups: Name of an attribute to its group in menus, where that is not the attribute's own group.
        artefacts: Names of the mask classes that nobody wants in an image, such as a watermark.
        path_arguments: Arguments of the constructor that are paths; a run stores them as absolute.
        counted: Names of the splits that have a number of images.
        independent: Whether every image is of its own; false for patches, of which many show one picture.
        training_images: Number of images of the training split, if it is known before they are read.
    """

    checked_methods = ("__init__", "split")
    name: ClassVar[str]
    can_rerender: ClassVar[bool] = False
    menu: ClassVar[tuple[str, ...]] = ()
    menu_classes: ClassVar[tuple[str, ...]] = ()
    menu_groups: ClassVar[Mapping[str, str]] = {}
    artefacts: ClassVar[tuple[str, ...]] = ()
    path_arguments: ClassVar[tuple[str, ...]] = ("path", "root")
    counted: ClassVar[tuple[SplitName, ...]] = SPLITS
    independent: ClassVar[bool] = True
    training_images: int | None = None
    image_shape: tuple[int, int, int]
    bins: int = 256
    transform: str = "none"
    class_names: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    mask_classes: tuple[str, ...] = ()

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """Return a split by name.

        Raises:
            DataMissing: The files are not on this machine.
            UserError: There is no such split.
        """

    def first(self, name: SplitName, n: int) -> Batch:
        """Return the first n images of a split, if possible without reading or rendering all of it."""
        return self.split(name).first(n)

    def rerender(self, name: SplitName, attribute: str, values: Tensor) -> Tensor:
        """Render the first images of a split with one attribute changed and all others as they were.

        Args:
            name: Name of the split.
            attribute: Name of the attribute.
            values: (n,), new values for the first n images, in the units of the attribute; NaN leaves an
                image unchanged.

        Returns:
            uint8 (n, C, H, W).

        Raises:
            Unsupported: The images are not rendered.
            UserError: There is no such attribute.
        """
        raise Unsupported(
            f"{self.name}: expected a data set of rendered images, for example scenes; these are not rendered"
        )

    def all_attributes(self) -> tuple[Attribute, ...]:
        """Return the attributes that a predictor can learn: `attributes`, or else the label."""
        label = Attribute("class", "category", classes=self.class_names)
        return self.attributes or ((label,) if self.class_names else ())

    def test_note(self) -> str:
        """Return why figures on the test split say nothing about other images; empty if they do."""
        return ""

    def notes(self) -> list[str]:
        """Return what a person should know of how the files were read, for the start of a run."""
        return []

    def sizes(self) -> dict[SplitName, int]:
        """Return the number of images of every split that has one; each split is opened."""
        return {name: len(split) for name, split in self.opened().items()}

    def opened(self) -> dict[SplitName, Split]:
        """Open every split that has a number of images."""
        return {name: self.split(name) for name in self.counted}

    def stream_digest(self) -> str:
        """SHA-256 of what identifies the training images of a stream; empty for other data sets."""
        return ""

    def summary(self, sizes: Mapping[SplitName, int]) -> str:
        """Return the numbers of images, as `sizes` has them, and of classes, in a line."""
        counts = [f"{size:,} {name}" for name, size in sizes.items()]
        classes = f", {len(self.class_names)} classes" if self.class_names else ""
        return f"{self.name}: {', '.join(counts)} images{classes}"

    def description(self) -> Description:
        """Return the record that is stored with a model trained on this data set."""
        return Description(self.name, self.image_shape, self.bins, self.transform, self.class_names)


class StreamedData(ImageData):
    """Data set whose training images are a stream, larger than the disk; the other splits are held in memory.

    `split("train")` raises UserError.
    """

    counted = ("validation", "test")

    @abstractmethod
    def stream(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        """Yield this rank's images from number `start` on, without end, one Batch each.

        The order is the same in every run; image g has key g and goes to rank g mod world.
        """


def digest_of(n: int, names: Sequence[object] | None, *contents: "Buffer") -> str:
    """SHA-256 of a number, names and contents, in hexadecimal."""
    digest = hashlib.sha256(f"{n}".encode())
    for name in names or ():
        digest.update(f"\n{name}".encode(errors="surrogateescape"))
    for content in contents:
        digest.update(content)
    return digest.hexdigest()


def contents_of(*parts: Tensor | None) -> Iterator["Buffer"]:
    """Bytes of tensors, for a digest; those that are None are left out."""
    return (part.contiguous().numpy().data for part in parts if part is not None)


def join(batches: list[Batch]) -> Batch:
    """Concatenate batches into one."""
    columns = zip(*batches, strict=True)
    return Batch(*(cast(Tensor, None if parts[0] is None else torch.cat(parts)) for parts in columns))


def given(data: ImageData | None, why: str) -> ImageData:
    """Return the data set; raises UserError with what it is needed for if there is none."""
    if data is None:
        raise UserError(f"data: expected a data set, {why}")
    return data


def first_of(menu: Sequence[str], names: Sequence[str]) -> list[str]:
    """Names with those of a menu first, in its order."""
    return [each for each in menu if each in names] + [each for each in names if each not in menu]


def fair_order(keys: Sequence[str | int]) -> list[int]:
    """Indices of items in a fixed random order, by a hash of their keys.

    The first n items of a set that comes sorted by class are then a fair sample of it. Adding or removing
    items changes the order of no others.
    """
    return sorted(range(len(keys)), key=lambda i: hashlib.sha256(f"order {keys[i]}".encode()).digest())


def comes_sorted(labels: Tensor) -> bool:
    """Whether the items of a set with labels, int64 (n,), are grouped by class."""
    changes = int((labels[1:] != labels[:-1]).sum())
    return 0 < changes < len(labels.unique())


def hold_out(n: int, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return the indices (kept, held out) of a fixed random split of n items, both ascending."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(n * share))
    return order[held:].sort().values, order[:held].sort().values


def hashed_split(key: str, validation: float, test: float) -> SplitName:
    """Return the split of the item called `key` by a hash; adding or removing items moves no others."""
    position = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
