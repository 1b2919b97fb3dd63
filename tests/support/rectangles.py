"""A data set of pictures that are wider than high, in which left and right, top and bottom differ."""

import torch

from flows.data.base import ArraySplit, Attribute, ImageData

SHAPE = (3, 16, 24)
COUNTS = {"train": 400, "validation": 24, "test": 24}


class Slopes(ImageData):
    """Red grows to the right, green downwards, and a blue rectangle is 4 pixels high and 6 wide.

    Attributes are the shares of the way to the right and downwards at which the rectangle stands; the label
    says whether it is in the right half, and the masks are its pixels.
    """

    name = "slopes"
    image_shape = SHAPE
    class_names = ("left", "right")
    attributes = (Attribute("across", "real"), Attribute("down", "real"))
    mask_classes = ("ground", "rectangle")

    def split(self, name):
        generator = torch.Generator().manual_seed(list(COUNTS).index(name))
        n, (_, height, width) = COUNTS[name], SHAPE
        images, masks = torch.zeros(n, *SHAPE), torch.zeros(n, height, width, dtype=torch.uint8)
        images[:, 0] = torch.linspace(0, 200, width)
        images[:, 1] = torch.linspace(0, 200, height)[:, None]
        places = torch.rand(n, 2, generator=generator)
        for i, (across, down) in enumerate(places):
            left, top = int(across * (width - 5)), int(down * (height - 3))
            masks[i, top : top + 4, left : left + 6] = 1
        images[:, 2] = 220.0 * masks
        images += 30 * torch.rand(images.shape, generator=generator)
        split = ArraySplit(images.byte(), (places[:, 0] > 0.5).long(), places)
        split.masks = masks
        return split
