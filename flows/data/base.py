"""What a data set is: 8-bit images in three splits, with a record of what was done to the pixels."""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import Dataset

from flows.errors import Unsupported

SplitName = Literal["train", "validation", "test"]


class Batch(NamedTuple):
    """What a loader hands to a loss.

    Attributes:
        images: uint8 (batch, C, H, W).
        labels: int64 (batch,); −1 where the data set has none.
        keys: int64 (batch,), the identity of every image within its split. Noise is drawn by key, so
            that it follows the image to whichever rank or batch it goes.
        attributes: float32 (batch, number of attributes), columns of the data set's `attributes`, not a
            number where it cannot be seen in that image; None where none are known.
        masks: uint8 (batch, H, W), the class of every pixel, numbers of the data set's `mask_classes`; None
            where there are none.
    """

    images: Tensor
    labels: Tensor
    keys: Tensor
    attributes: Tensor | None = None
    masks: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        """The same batch with images and labels on `device`; keys are read by the host and stay."""
        return self.each(lambda part: part.to(device, non_blocking=True))._replace(keys=self.keys)

    def first(self, n: int) -> "Batch":
        """The batch of its first n images."""
        return self.each(lambda part: part[:n])

    def each(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        """The batch with `change` done to all that it has."""
        return Batch(*(cast(Tensor, part if part is None else change(part)) for part in self))


AttributeKind = Literal["binary", "category", "real", "circular"]


@dataclass(frozen=True)
class Attribute:
    """Something that can be said of an image.

    Attributes:
        name: what tools call it.
        kind: `binary` is 0 or 1, `category` an index of `classes`, `real` a number from `low` to `high`,
            `circular` a number in [0, 1) whose ends meet, like a hue.
        group: of names for a menu, coarse to fine; of scenes layout, category, object, attribute, artefact.
        classes: of a category.
        low, high: range of a real number.
    """

    name: str
    kind: AttributeKind
    group: str = "attribute"
    classes: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 1.0


class Split(Dataset[Batch], ABC):
    """One split of a data set, random access.

    To add one: implement `__len__` and `__getitems__`. `attributes` and `masks` are those of all images, as
    in `Batch` but for the attributes' type, or None.
    """

    attributes: Tensor | None = None
    masks: Tensor | None = None

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __getitems__(self, indices: list[int]) -> Batch:
        """The batch of the images with these indices, in this order."""

    def __getitem__(self, index: int) -> Batch:
        return self.__getitems__([index])

    def batch(self, images: Tensor, labels: Tensor, keys: Tensor) -> Batch:
        """These images of the split with what is known of them."""
        attributes = None if self.attributes is None else self.attributes[keys].float()
        return Batch(images, labels, keys, attributes, None if self.masks is None else self.masks[keys])

    def first(self, n: int | None) -> Batch:
        """The first `n` images of the split (all of them where `n` is None) as one batch."""
        return self.__getitems__(list(range(len(self) if n is None else min(n, len(self)))))


class ArraySplit(Split):
    """A split held in memory as uint8, decoded once."""

    def __init__(self, images: Tensor, labels: Tensor | None = None, attributes: Tensor | None = None):
        self.images = images
        self.labels = labels if labels is not None else torch.full((len(images),), -1)
        self.attributes = attributes

    def __len__(self) -> int:
        return len(self.images)

    def __getitems__(self, indices: list[int]) -> Batch:
        keys = torch.as_tensor(indices)
        return self.batch(self.images[keys], self.labels[keys], keys)


@dataclass(frozen=True)
class Description:
    """What a model's numbers depend on, stored beside its weights: bits/dim mean nothing without it."""

    name: str
    image_shape: tuple[int, int, int]
    bins: int
    transform: str
    class_names: tuple[str, ...] = ()


class ImageData(ABC):
    """A data set of uint8 images.

    To add one: new file here, a class with the attributes below and `split`. Its constructor's
    arguments are what a config may set; every one but a path has a default. Nothing is read before
    `split` is called, other than what the attributes need.

    Attributes:
        name: short, for tables.
        image_shape: (C, H, W).
        bins: number of grey levels a model should tell apart (256 for 8-bit images).
        transform: one line on what was done to the original pixels; "none" where nothing was.
        class_names: names of the labels, empty where there are none.
        attributes: columns of `Split.attributes`.
        mask_classes: names of the values of `Split.masks`.
        draws_again: whether `redraw` can.
    """

    name: ClassVar[str]
    draws_again: ClassVar[bool] = False
    image_shape: tuple[int, int, int]
    bins: int = 256
    transform: str = "none"
    class_names: tuple[str, ...] = ()
    attributes: tuple[Attribute, ...] = ()
    mask_classes: tuple[str, ...] = ()

    @abstractmethod
    def split(self, name: SplitName) -> Split:
        """The split of that name. Raises DataMissing where its files are not on this machine."""

    def first(self, name: SplitName, n: int) -> Batch:
        """The first n images of a split; quicker than reading or drawing all of it, where that can be."""
        return self.split(name).first(n)

    def redraw(self, name: SplitName, attribute: str, values: Tensor) -> Tensor:
        """The first images of a split with one attribute changed and all else as it was.

        Args:
            name: of the split.
            attribute: its name.
            values: (n,), in the attribute's units, one for each of the first n images; where it is not a
                number, the image stays as it is.

        Returns:
            uint8 (n, C, H, W).

        Raises:
            ValueError: the images are no drawings, or there is no such attribute.
        """
        raise Unsupported(f"{self.name}: its images were not drawn here, none can be drawn again")

    def all_attributes(self) -> tuple[Attribute, ...]:
        """What a predictor can learn of the images: their attributes, or else their labels."""
        label = Attribute("class", "category", classes=self.class_names)
        return self.attributes or ((label,) if self.class_names else ())

    def description(self) -> Description:
        """The record that goes beside the weights of a model trained on this data set."""
        return Description(self.name, self.image_shape, self.bins, self.transform, self.class_names)


class StreamedData(ImageData):
    """A data set whose training images are a stream, larger than the disk; the other splits are held.

    `split("train")` raises ValueError.
    """

    @abstractmethod
    def stream(self, start: int, rank: int, world: int) -> Iterator[Batch]:
        """Single images without end, one Batch each: of all from number `start` on, those of this rank.

        The order is the same on every run, image g has the key g and goes to rank g mod world.
        """


def hold_out(n: int, share: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Indices (kept, held out) of a fixed random split of n items, both ascending."""
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held = max(1, round(n * share))
    return order[held:].sort().values, order[:held].sort().values


def hashed_split(key: str, validation: float, test: float) -> SplitName:
    """The split of the item called `key`, by a hash of it: items that come or go move no other."""
    position = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8]) / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"
