"""scikit-learn's digits: 1,797 grey images of 8×8 pixels with 17 grey levels. No download."""

from functools import cached_property

import torch
from torch import Tensor

from flows import images
from flows.core.extras import optional
from flows.data.base import ArraySplit, ImageData, SplitName

__all__ = ["Digits"]


class Digits(ImageData):
    """UCI handwritten digits as shipped with scikit-learn, for demos and tests.

    The original values are 0 … 16, so a model sees 17 bins, and bits/dim refer to 17 levels instead of 256.
    Splits: a fixed permutation, 1,397 for training, 200 for validation, 200 for test.
    """

    name = "digits"
    image_shape = (1, 8, 8)
    bins = 17
    transform = "17 grey levels, spaced evenly over the bytes 0 to 241"
    class_names = tuple("0123456789")
    training_images = 1397

    @cached_property
    def _arrays(self) -> tuple[Tensor, Tensor]:
        digits = optional("sklearn.datasets").load_digits()  # importing takes a second
        levels = torch.from_numpy(digits.images).to(torch.uint8)[:, None]
        return images.bin_byte(levels, self.bins), torch.from_numpy(digits.target)

    def split(self, name: SplitName) -> ArraySplit:
        pixels, labels = self._arrays
        order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
        chosen = {"test": order[:200], "validation": order[200:400], "train": order[400:]}[name]
        return ArraySplit(pixels[chosen], labels[chosen])
