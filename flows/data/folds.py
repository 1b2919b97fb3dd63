"""Parts of a small data set, each held out once."""

import torch
from torch import Tensor

from flows.data.base import ArraySplit, Batch, ImageData, Split, SplitName


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
    attributes = None if images.attributes is None else images.attributes[rows]
    masks = None if images.masks is None else images.masks[rows]
    return ArraySplit(images.images[rows], images.labels[rows], attributes, masks=masks)


def folds_of(data: ImageData, folds: int, most: int) -> list[ImageData]:
    """Parts of the training and validation images of a data set, each of them held out once.

    Args:
        data: Data set.
        folds: Number of parts.
        most: Largest number of images that are divided.

    Returns:
        Parts of nearly equal size; none if there are more images than `most`, or fewer than `folds`, or if
        the images are parts of the same pictures, which would then be trained on and held out.
    """
    if not data.independent:
        return []
    splits = [data.split("train"), data.split("validation")]
    n = sum(map(len, splits))
    if n > most or n < folds:
        return []
    batches = [split.first(None) for split in splits]
    together = [torch.cat(parts) if parts[0] is not None else None for parts in zip(*batches, strict=True)]
    images = Batch(*together)  # type: ignore[arg-type]
    # Both splits come in an order of their own that is random, so that every folds-th image is a fair part.
    return [_Fold(data, images, torch.arange(k, n, folds)) for k in range(folds)]
