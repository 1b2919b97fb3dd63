"""Dots: images with one bright dot."""

import torch

from flows.data.base import ArraySplit, Attribute, ImageData, SplitName


class Dots(ImageData):
    """Grey images of 8×8 pixels with one bright dot, whose position is known.

    Args:
        images: Number of training images.
    """

    name = "dots"
    image_shape = (1, 8, 8)
    attributes = (Attribute("row", "real", high=6.0), Attribute("column", "real", high=6.0))
    menu = ("row",)

    def __init__(self, images: int = 500):
        self.counts = {"train": images, "validation": 100, "test": 100}

    def split(self, name: SplitName) -> ArraySplit:
        random = torch.Generator().manual_seed(list(self.counts).index(name))
        n = self.counts[name]
        images = torch.randint(0, 40, (n, 1, 8, 8), dtype=torch.uint8, generator=random)
        places = torch.randint(0, 7, (n, 2), generator=random)
        for image, (row, column) in zip(images, places.tolist(), strict=True):
            image[0, row : row + 2, column : column + 2] += 180
        return ArraySplit(images, attributes=places.float())
