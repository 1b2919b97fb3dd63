"""Small standard data sets, read through torchvision and held in memory as uint8.

Files are searched under `root` in torchvision's layout first, and downloaded only if `download` is set.
"""

import zipfile
from abc import abstractmethod
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad

from flows import images
from flows.core.bounds import Side
from flows.data.base import ArraySplit, ImageData, SplitName, comes_sorted, fair_order, hold_out
from flows.data.decode import resize_transform, resized
from flows.errors import DataMissing
from flows.storage.files import StrPath, expand

__all__ = ["CIFAR10", "CIFAR100", "EMNIST", "Flowers102", "KMNIST", "MNIST", "STL10", "SVHN", "USPS"]

T = TypeVar("T")

ROOT = Path("~/.cache/flows")


def find_files(make: Callable[..., T], root: Path, download: bool, layout: str) -> T:
    """Return `make(download=False)` or, if that fails and `download` is set, `make(download=True)`.

    Args:
        make: Class of torchvision with all arguments but `download` bound.
        root: Folder in which `make` searches, for the error message.
        download: Whether to download missing files.
        layout: Files below `root` by which `make` recognises the data set, for the error message.

    Raises:
        DataMissing: The files are missing, and the download fails or is not allowed.
    """
    for attempt in (False, True) if download else (False,):
        try:
            return make(download=attempt)
        except (RuntimeError, OSError, ImportError, zipfile.BadZipFile) as error:
            failure = error
    way_out = "the download did not work" if download else "set data.download to true"
    raise DataMissing(
        f"no {layout} under {root} ({failure}); {way_out}, or put the files there and set data.root"
    ) from failure


def official_set(name: str) -> Any:
    """Return torchvision's class of that name; the import takes a second, so it is not at the top."""
    from torchvision import datasets

    return getattr(datasets, name)


class TorchvisionData(ImageData):
    """Data set that torchvision reads, with official training and test images.

    Splits: 95 % and 5 % of the official training set (fixed permutation), and the official test set. To add
    one: write a class in this file with the attributes of `ImageData`, `layout` and `official`.

    Args:
        root: Folder with the files in torchvision's layout.
        download: Whether to download missing files.

    Attributes:
        layout: Files below `root` by which torchvision recognises the data set.
    """

    layout: str

    def __init__(self, root: StrPath = ROOT, download: bool = False):
        self.root = expand(root)
        self.download = download

    @abstractmethod
    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        """Return images uint8 (n, C, H, W) and labels int64 (n,) in the published order."""

    def split(self, name: SplitName) -> ArraySplit:
        pixels, labels = self.official(train=name != "test")
        if name == "test":
            return ArraySplit(pixels, labels)
        train, validation = hold_out(len(labels), share=0.05)
        chosen = train if name == "train" else validation
        return ArraySplit(pixels[chosen], labels[chosen])

    def find(self, make: Callable[..., T]) -> T:
        """Apply `find_files` with the root, download option and layout of this data set."""
        return find_files(make, self.root, self.download, self.layout)


# Grey ---------------------------------------------------------------------------------------------


class MNIST(TorchvisionData):
    """MNIST: 70,000 handwritten digits.

    Args:
        root: Folder with the files in torchvision's layout.
        download: Whether to download missing files.
        size: Side of the images in pixels, 28 as published, or 32 with a zero border.
    """

    name = "mnist"
    layout = "MNIST/raw/train-images-idx3-ubyte and its three companions"
    class_names: tuple[str, ...] = tuple("0123456789")
    source = "MNIST"

    def __init__(self, root: StrPath = ROOT, download: bool = False, size: Literal[28, 32] = 32):
        super().__init__(root, download)
        self.image_shape = (1, size, size)
        self.transform = "28×28 zero-padded to 32×32" if size == 32 else "none"

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        dataset = self.find(partial(official_set(self.source), self.root, train))
        return self.padded(dataset.data), dataset.targets.long()

    def padded(self, pixels: Tensor) -> Tensor:
        """Pad uint8 (n, 28, 28) to (n, *image_shape)."""
        border = (self.image_shape[2] - 28) // 2
        return pad(pixels[:, None], (border,) * 4)


class KMNIST(MNIST):
    """Kuzushiji-MNIST: 70,000 cursive Japanese characters in ten classes."""

    name = "kmnist"
    layout = "KMNIST/raw/train-images-idx3-ubyte and its three companions"
    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    source = "KMNIST"


class EMNIST(MNIST):
    """EMNIST: handwritten letters and digits, upright (the files hold them transposed).

    Args:
        root: Folder with the files in torchvision's layout.
        download: Whether to download missing files.
        size: Side of the images in pixels, 28 as published, or 32 with a zero border.
        part: Name of one of the published parts.
    """

    name = "emnist"
    layout = "EMNIST/raw/emnist-…-train-images-idx3-ubyte and its companions"

    def __init__(
        self,
        root: StrPath = ROOT,
        download: bool = False,
        size: Literal[28, 32] = 32,
        part: Literal["balanced", "letters", "digits", "byclass", "bymerge", "mnist"] = "balanced",
    ):
        super().__init__(root, download, size)
        self.part = part
        self.class_names = tuple(official_set("EMNIST").classes_split_dict[part])
        padded = "" if size == 28 else ", 28×28 zero-padded to 32×32"
        self.transform = f"part {part}, transposed{padded}"

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        dataset = self.find(partial(official_set("EMNIST"), self.root, self.part, train=train))
        return self.padded(dataset.data.mT), dataset.targets.long()


class USPS(TorchvisionData):
    """USPS: 9,298 handwritten digits of 16×16 pixels from envelopes."""

    name = "usps"
    image_shape = (1, 16, 16)
    layout = "usps.bz2 and usps.t.bz2"
    class_names = tuple("0123456789")

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        dataset = self.find(partial(official_set("USPS"), self.root, train))
        return torch.from_numpy(dataset.data)[:, None], torch.as_tensor(dataset.targets)


# Colour -------------------------------------------------------------------------------------------


class CIFAR10(TorchvisionData):
    """CIFAR-10: 60,000 photographs of 32×32 pixels in ten classes."""

    name = "cifar-10"
    image_shape = (3, 32, 32)
    layout = "cifar-10-batches-py/ with data_batch_1 to 5 and test_batch"
    class_names: tuple[str, ...] = (
        "airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck",
    )  # fmt: skip
    source = "CIFAR10"

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        dataset = self.find(partial(official_set(self.source), self.root, train))
        pixels = torch.from_numpy(dataset.data).permute(0, 3, 1, 2).contiguous()
        return pixels, torch.as_tensor(dataset.targets)


class CIFAR100(CIFAR10):
    """CIFAR-100: 60,000 photographs of 32×32 pixels in a hundred classes."""

    name = "cifar-100"
    layout = "cifar-100-python/ with train and test"
    class_names = tuple(
        """
        apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus
        butterfly camel can castle caterpillar cattle chair chimpanzee clock cloud cockroach couch
        crab crocodile cup dinosaur dolphin elephant flatfish forest fox girl hamster house kangaroo
        keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain
        mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain
        plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
        skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone
        television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
        """.split()
    )
    source = "CIFAR100"


class SVHN(TorchvisionData):
    """SVHN: 99,289 house numbers of 32×32 pixels, without the `extra` images."""

    name = "svhn"
    image_shape = (3, 32, 32)
    layout = "train_32x32.mat and test_32x32.mat"
    class_names = tuple("0123456789")

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        part = "train" if train else "test"
        dataset = self.find(partial(official_set("SVHN"), self.root, part))
        return torch.from_numpy(dataset.data).contiguous(), torch.from_numpy(dataset.labels).long()


class STL10(TorchvisionData):
    """STL-10: 13,000 labelled photographs of 96×96 pixels in ten classes, 100,000 without labels.

    Args:
        root: Folder with the files in torchvision's layout.
        download: Whether to download missing files.
        size: Side of the images in pixels, 96 as published, or smaller by resizing.
        unlabelled: Whether to train on the 100,000 photographs without labels (2.8 GB in memory at 96).
    """

    name = "stl-10"
    layout = "stl10_binary/"
    class_names = (
        "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
    )  # fmt: skip

    def __init__(
        self, root: StrPath = ROOT, download: bool = False, size: Side = 96, unlabelled: bool = False
    ):
        super().__init__(root, download)
        self.image_shape = (3, size, size)
        self.transform = "none" if size == 96 else resize_transform(size, 3)
        self.part = "unlabeled" if unlabelled else "train"

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        part = self.part if train else "test"
        dataset = self.find(partial(official_set("STL10"), self.root, part))
        labels = torch.from_numpy(np.asarray(dataset.labels)).long()
        return self._resized(torch.from_numpy(dataset.data)), labels

    def _resized(self, pixels: Tensor) -> Tensor:
        size = self.image_shape[2]
        if size == 96:
            return pixels.contiguous()
        return torch.stack([resized(images.to_pillow(picture), size, 3) for picture in pixels])


class Flowers102(ImageData):
    """Oxford Flowers: 8,189 photographs in 102 classes, centre-cropped and resized.

    Splits: the official ones, 1,020 for training, 1,020 for validation, 6,149 for test.

    Args:
        root: Folder with the files in torchvision's layout.
        download: Whether to download missing files.
        size: Side of the square images in pixels.
    """

    name = "flowers-102"
    layout = "flowers-102/ with jpg/, imagelabels.mat and setid.mat"

    def __init__(self, root: StrPath = ROOT, download: bool = False, size: Side = 64):
        self.root = expand(root)
        self.download = download
        self.image_shape = (3, size, size)
        self.transform = resize_transform(size, 3)

    def split(self, name: SplitName) -> ArraySplit:
        part = "val" if name == "validation" else name
        make = partial(official_set("Flowers102"), self.root, part)
        dataset = find_files(make, self.root, self.download, self.layout)
        pairs = [(resized(picture, self.image_shape[2], 3), label) for picture, label in dataset]
        pixels, labels = zip(*pairs, strict=True)
        images, numbers = torch.stack(pixels), torch.tensor(labels)
        if comes_sorted(numbers):
            order = fair_order(range(len(numbers)))
            images, numbers = images[order], numbers[order]
        return ArraySplit(images, numbers)
