"""Parts of a small data set, each held out once."""

import torch
from torch import Tensor

from flows.data.base import ArraySplit, Batch, ImageData, Split, SplitName, join


class _Fold(ImageData):
    """Data set whose validation split is one part of the training and validation images of another one.

    Args:
        data: Data set.
        images: Training and validation images of the data set.
        held_out: Indices of the images of the part, int64.
    """

    name = "fold"
    counted = ("train", "validation")

    def __init__(self, data: ImageData, images: Batch, held_out: Tensor):
        self.image_shape, self.bins, self.transform = data.image_shape, data.bins, data.transform
        self.class_names, self.attributes = data.class_names, data.attributes
        self.mask_classes = data.mask_classes
        rest = torch.ones(len(images.images), dtype=torch.bool)
        rest[held_out] = False
        train, validation = part_of(images, rest.nonzero()[:, 0]), part_of(images, held_out)
        self.splits: dict[SplitName, Split] = {"train": train, "validation": validation}

    def split(self, name: SplitName) -> Split:
        return self.splits[name]


def part_of(images: Batch, rows: Tensor) -> ArraySplit:
    """Split of some images of a batch."""
    part = images.each(lambda values: values[rows])
    return ArraySplit(part.images, part.labels, part.attributes, masks=part.masks)


def number_of_folds(data: ImageData, folds: int, most: int) -> int:
    """Number of parts of the training and validation images of a data set, without making them.

    Args:
        data: Data set.
        folds: Number of parts that is wanted.
        most: Largest number of images that are divided.

    Returns:
        `folds`, or 0 if there are more images than `most`, or fewer than `folds`, or if the images are parts
        of the same pictures, which would then be trained on and held out.
    """
    if not data.independent:
        return 0
    n = len(data.split("train")) + len(data.split("validation"))
    return folds if folds <= n <= most else 0


def folds_of(data: ImageData, folds: int, most: int) -> list[ImageData]:
    """Parts of nearly equal size, each of them held out once; see `number_of_folds`, which may be 0."""
    count = number_of_folds(data, folds, most)
    if not count:
        return []
    images = join([data.split("train").first(None), data.split("validation").first(None)])
    # Both splits come in an order of their own that is random, so that every count-th image is a fair part.
    return [_Fold(data, images, torch.arange(k, len(images.images), count)) for k in range(count)]
