"""Data of one's own as a data set: arrays, torch data sets, and lists of pictures."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset

from flows import images as pixels
from flows.core.bounds import Bins, ImageShape
from flows.core.labels import as_labels
from flows.data.base import ArraySplit, Batch, ImageData, Split, SplitName, digest_of
from flows.errors import UserError

__all__ = ["as_data"]

IMAGE_KEYS, LABEL_KEYS = ("image", "img"), ("label", "target")
"""Keys of the image and of the label in items that are mappings."""
NEAR = 1e-3
"""Largest difference from a whole byte, as a multiple of a byte, of floats that are bytes divided by 255."""
MOST_CLASSES = 1000
"""Number of labels in an array up to which they are given names."""


def as_data(
    data: Any,
    image_shape: Sequence[int],
    bins: int = 256,
    validation: Any = 0.05,
    test: Any = 0.05,
    name: str = "",
) -> ImageData:
    """Make a data set of images that are in memory, or that a torch data set reads.

        as_data(images, (1, 28, 28))  # uint8 (n, 28, 28); a tensor or an array
        as_data((images, labels), (3, 32, 32), test=(others, their_labels))
        as_data(torchvision.datasets.CIFAR10("files"), (3, 32, 32))

    Data are a uint8 array or tensor (n, C, H, W), (n, H, W, C) or, for one channel, (n, H, W); a pair
    (images, labels) of arrays; or any object with `__len__` and `__getitem__`, such as a `Dataset` of torch,
    a list of pictures or a `Split` of flows. Its items are images, pairs (image, label), or mappings with
    the keys `image` or `img`, and `label` or `target`; an image is a Pillow image, array or tensor. Items are
    read anew whenever they are needed, so that random transforms keep their effect; labels are numbers from
    0, and −1 where there are none. Floats are taken if all are bytes divided by 255, as `ToTensor` returns
    them, and refused otherwise, because they would have to be rounded.

    Args:
        data: Training images, of which shares are held out. An `ImageData` is returned as it is.
        image_shape: (C, H, W) of the images.
        bins: Number of grey levels that a model distinguishes.
        validation: Share of `data` that is held out for validation, by a fixed permutation; or other data.
        test: Share of `data` that is held out for test; or other data.
        name: Name in tables and model cards; empty takes that of the class of `data`.

    Raises:
        UserError: The data are of another kind, too few, no bytes, or of another shape.
    """
    held: dict[SplitName, Any] = {"validation": validation, "test": test}
    if isinstance(data, ImageData):
        if given := [key for key, value in held.items() if not isinstance(value, int | float)]:
            raise UserError(f"{given[0]}: {type(data).__name__} has splits of its own; leave it out")
        return data
    channels, height, width = image_shape
    shape = (channels, height, width)
    whole = as_split(data, shape, "data")
    shares = {key: _share(key, value) for key, value in held.items() if isinstance(value, int | float)}
    splits = held_out(whole, shares)
    splits |= {key: as_split(value, shape, key) for key, value in held.items() if key not in shares}
    counts = " and ".join(f"{len(splits[key])} {key}" for key in shares)
    notes = [f"held out by a fixed permutation: {counts} images"] if shares else []
    return _Own(splits, shape, bins, name or _name_of(data), _class_names(data, whole), notes)


class _Own(ImageData):
    """Data set made of splits that exist already; no config and no checkpoint can name it.

    Args:
        splits: Splits by name.
        image_shape: (C, H, W).
        bins: Number of grey levels that a model distinguishes.
        name: Name in tables.
        class_names: Names of the labels.
        said: Sentences for the start of a run.
    """

    name: str  # type: ignore[misc]

    def __init__(
        self,
        splits: Mapping[SplitName, Split],
        image_shape: ImageShape,
        bins: Bins,
        name: str,
        class_names: tuple[str, ...],
        said: Sequence[str],
    ):
        channels, height, width = image_shape
        self.splits, self.image_shape, self.bins = splits, (channels, height, width), bins
        self.name, self.class_names, self.said = name, class_names, said

    def split(self, name: SplitName) -> Split:
        return self.splits[name]

    def notes(self) -> list[str]:
        """Sentence on the images that were held out."""
        return list(self.said)


# Splits -------------------------------------------------------------------------------------------


def held_out(whole: Split, shares: Mapping[SplitName, float]) -> dict[SplitName, Split]:
    """Divide a split into training and held-out images by a fixed permutation.

    Args:
        whole: All images.
        shares: Name of each split that is held out to its share; none leaves all images for training.

    Raises:
        UserError: There are too few images.
    """
    if not shares:
        return {"train": whole}
    counts = {name: max(1, round(len(whole) * share)) for name, share in shares.items()}
    left = len(whole) - sum(counts.values())
    if left < 1:
        raise UserError(
            f"data: {len(whole)} images leave none for training beside {sum(counts.values())} held out; give "
            "more, or pass validation= and test="
        )
    order = torch.randperm(len(whole), generator=torch.Generator().manual_seed(0)).tolist()
    splits: dict[SplitName, Split] = {}
    for name, count in counts.items():
        splits[name], order = Rows(whole, order[:count]), order[count:]
    return {"train": Rows(whole, sorted(order)), **splits}


class Rows(Split):
    """Some images of a split, in an order of their own.

    Args:
        whole: Split that has them.
        rows: Number of each image in `whole`.
    """

    def __init__(self, whole: Split, rows: Sequence[int]):
        self.whole, self.rows = whole, list(rows)
        self.attributes = None if whole.attributes is None else whole.attributes[self.rows]
        self.masks = None if whole.masks is None else whole.masks[self.rows]
        self.names = None if whole.names is None else [whole.names[row] for row in self.rows]

    @property
    def labels(self) -> Tensor | None:
        """Labels, int64 (n,), if the whole split has them without its images."""
        labels: Tensor | None = getattr(self.whole, "labels", None)
        return None if labels is None else labels[self.rows]

    def digest(self) -> str:
        """SHA-256 of the whole split's digest and the numbers of the images in it."""
        return digest_of(len(self), self.rows, self.whole.digest().encode())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> Batch:
        batch = self.whole.__getitems__([self.rows[i] for i in indices])
        return batch._replace(keys=torch.as_tensor(indices))


class ItemSplit(Split):
    """Split whose images an object with `__len__` and `__getitem__` reads, one item at a time.

    Args:
        items: Object whose items are images, pairs (image, label) or mappings; see `as_data`.
        image_shape: (C, H, W) of the images.
        name: Name of the data in messages.
    """

    def __init__(self, items: Any, image_shape: tuple[int, int, int], name: str = "data"):
        self.items, self.image_shape, self.name = items, image_shape, name

    def __len__(self) -> int:
        return len(self.items)

    def name_of(self, index: int) -> str:
        return f"item {index} of {self.name}"

    def __getitems__(self, indices: list[int]) -> Batch:
        read = [self.read(i) for i in indices]
        images = torch.stack([image for image, _ in read])
        return Batch(images, torch.tensor([label for _, label in read]), torch.as_tensor(indices))

    def read(self, index: int) -> tuple[Tensor, int]:
        """Image, uint8 (C, H, W), and label of an item; −1 if it has no label."""
        with naming(self.name_of(index)):
            image, label = parts_of(self.items[index])
            found = bytes_of(image, self.image_shape)
            if len(found) != 1:
                raise UserError(f"expected a single image, got {len(found)}")
        return found[0], label

    @cached_property
    def labels(self) -> Tensor:
        """Labels, int64 (n,), for which every item is read."""
        return torch.tensor([self.read(i)[1] for i in range(len(self))])


def as_split(data: Any, image_shape: tuple[int, int, int], name: str) -> Split:
    """Make a split of data of any kind that `as_data` takes; the first item is read at once.

    Args:
        data: Images.
        image_shape: (C, H, W) of the images.
        name: Name of the argument, for messages.

    Raises:
        UserError: The data are of another kind, empty, no bytes, or of another shape.
    """
    if isinstance(data, Split):
        split: Split = data
    elif isinstance(data, pixels.Images | np.ndarray | Tensor) or _is_pair(data):
        images, labels = data if isinstance(data, tuple) else (data, None)
        with naming(name):
            found = bytes_of(images, image_shape)
            known = None if labels is None else as_labels(labels).cpu()
        if known is not None and len(known) != len(found):
            raise UserError(f"{name}: expected one label per image, {len(found)}, got {len(known)}")
        split = ArraySplit(found.cpu(), known)
    else:
        check_items(data, image_shape, name)
        split = ItemSplit(data, image_shape, name)
    if not len(split):
        raise UserError(f"{name}: expected images, got none")
    first = split.first(1).images
    if tuple(first.shape[1:]) != image_shape:
        raise UserError(f"{name}: expected images {image_shape}, got {tuple(first.shape[1:])}")
    return split


@contextmanager
def naming(place: str) -> Iterator[None]:
    """Context in which a UserError begins with the place of what is wrong."""
    try:
        yield
    except UserError as error:
        raise type(error)(f"{place}: {error}") from error


def check_items(data: Any, image_shape: tuple[int, int, int], name: str) -> None:
    """Raise UserError, with the way out, unless the data have a length and items by number."""
    expected = f"{name}: expected an array, a pair of arrays, a torch Dataset or a data set of flows.data"
    if isinstance(data, str) or hasattr(data, "__fspath__"):
        channels, _, side = image_shape
        way = f"flows.data.Folder({str(data)!r}, size={side}, channels={channels})"
        raise UserError(f"{expected}; a folder of pictures is {way}")
    if isinstance(data, IterableDataset):
        raise UserError(f"{expected}; a stream without a length is a subclass of flows.data.StreamedData")
    if hasattr(data, "batch_size") and hasattr(data, "dataset"):
        raise UserError(f"{expected}, got {type(data).__name__}; give its .dataset")
    if not hasattr(data, "__len__") or not hasattr(data, "__getitem__") or isinstance(data, Mapping):
        raise UserError(f"{expected}, got {type(data).__name__}")


def _is_pair(data: Any) -> bool:
    """Whether data are a pair (images, labels) of arrays."""
    kinds = pixels.Images | np.ndarray | Tensor
    return isinstance(data, tuple) and len(data) == 2 and isinstance(data[0], kinds)


def _share(name: SplitName, value: float) -> float:
    if isinstance(value, bool) or not 0 < value < 1:
        raise UserError(f"{name}: expected a share of the images above 0 and below 1, or data; got {value}")
    return value


# Items --------------------------------------------------------------------------------------------


def parts_of(item: Any) -> tuple[Any, int]:
    """Image and label of an item; −1 if it has no label.

    Raises:
        UserError: The item is of another kind.
    """
    if isinstance(item, Mapping):
        image = next((item[key] for key in IMAGE_KEYS if key in item), None)
        if image is None:
            raise UserError(f"expected a key {' or '.join(IMAGE_KEYS)}, got {', '.join(map(str, item))}")
        return image, label_of(next((item[key] for key in LABEL_KEYS if key in item), None))
    if isinstance(item, tuple | list):
        if len(item) not in (1, 2):
            raise UserError(f"expected an image or a pair (image, label), got {len(item)} values")
        return item[0], label_of(item[1] if len(item) == 2 else None)
    return item, -1


def label_of(label: Any) -> int:
    """Label as a number; −1 for None. Raises UserError unless it is a whole number."""
    if label is None:
        return -1
    found = np.asarray(label)
    if found.size != 1 or not np.issubdtype(found.dtype, np.integer):
        raise UserError(f"label: expected a whole number, got {label!r}")
    return int(found.reshape(()))


def bytes_of(images: Any, image_shape: tuple[int, int, int]) -> Tensor:
    """Convert images to uint8 (n, C, H, W), as `flows.images.as_bytes`, also floats that are bytes / 255.

    Raises:
        UserError: The values are no bytes, or the shape does not fit.
    """
    if isinstance(images, np.ndarray) and np.issubdtype(images.dtype, np.floating):
        images = torch.from_numpy(np.ascontiguousarray(images))
    if isinstance(images, Tensor) and images.is_floating_point():
        images = from_unit(images)
    if not isinstance(images, Image.Image | np.ndarray | Tensor | pixels.Images):
        raise UserError(f"expected a Pillow image, an array or a tensor, got {type(images).__name__}")
    return pixels.as_bytes(images, image_shape)


def from_unit(images: Tensor) -> Tensor:
    """Convert floats that are bytes divided by 255 to these bytes.

    Raises:
        UserError: A value is none.
    """
    scaled = images.double() * 255
    rounded = scaled.round().clamp(0, 255)
    if images.numel() and not bool(((scaled - rounded).abs() <= NEAR).all()):
        low, high = float(images.min()), float(images.max())
        raise UserError(
            f"expected uint8 pixels in [0, 255], got {images.dtype} from {low:.4g} to {high:.4g}, which are "
            "not bytes divided by 255; leave out Normalize, take PILToTensor, or convert by "
            "flows.images.to_bytes(images)"
        )
    return rounded.to(torch.uint8)


# Names --------------------------------------------------------------------------------------------


def _name_of(data: Any) -> str:
    """Name of the class of a torch data set, in lower case; `arrays` or `pictures` for what has no name."""
    if isinstance(data, pixels.Images | np.ndarray | Tensor | tuple):
        return "arrays"
    return "pictures" if isinstance(data, list) else type(data).__name__.lower()


def _class_names(data: Any, whole: Split) -> tuple[str, ...]:
    """Names of the classes: those that a torch data set has, or the numbers of the labels of an array."""
    while not hasattr(data, "classes") and hasattr(data, "dataset"):  # a Subset of another data set
        data = data.dataset
    names = getattr(data, "classes", None)
    if isinstance(names, list | tuple) and all(isinstance(name, str) for name in names):
        return tuple(names)
    labels = whole.labels if isinstance(whole, ArraySplit) else torch.empty(0)
    most = int(labels.max()) + 1 if len(labels) else 0
    return tuple(map(str, range(most))) if most <= MOST_CLASSES else ()
