"""The small standard sets, read through torchvision and kept in memory as uint8.

Each looks under `root` first, in torchvision's layout, and downloads only where it may.
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
from flows.data.base import ArraySplit, ImageData, SplitName, hold_out
from flows.data.decode import square, square_transform
from flows.errors import DataMissing

T = TypeVar("T")

ROOT = Path("~/.cache/flows")


def find_files(make: Callable[..., T], root: Path, download: bool, layout: str) -> T:
    """`make(download=False)`, and if that fails and `download` allows it, `make(download=True)`.

    Args:
        make: a torchvision class with everything but `download` filled in.
        root: where it looks.
        download: whether it may download.
        layout: the files below `root` by which it knows the set, for the message.

    Raises:
        DataMissing: if neither works.
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
    """torchvision's class of that name; imported when it is asked for, which takes a second."""
    from torchvision import datasets

    return getattr(datasets, name)


class TorchvisionData(ImageData):
    """A set that torchvision reads, with official training and test images.

    Splits: 95 % and 5 % of the official training set (fixed permutation), and the official test
    set. To add one: a class here with the attributes of `ImageData`, `layout` and `official`.

    Args:
        root: folder with the files in torchvision's layout.
        download: fetch them if they are not there.

    Attributes:
        layout: the files below `root` by which torchvision knows the set.
    """

    layout: str

    def __init__(self, root: Path = ROOT, download: bool = False):
        self.root = root.expanduser()
        self.download = download

    @abstractmethod
    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        """Images uint8 (n, C, H, W) and labels int64 (n,) in the published order."""

    def split(self, name: SplitName) -> ArraySplit:
        pixels, labels = self.official(train=name != "test")
        if name == "test":
            return ArraySplit(pixels, labels)
        train, validation = hold_out(len(labels), share=0.05)
        chosen = train if name == "train" else validation
        return ArraySplit(pixels[chosen], labels[chosen])

    def find(self, make: Callable[..., T]) -> T:
        """What `make(download=...)` returns; see the function `find`."""
        return find_files(make, self.root, self.download, self.layout)


# Grey, 28×28 --------------------------------------------------------------------------------------


class MNIST(TorchvisionData):
    """MNIST: 70,000 handwritten digits.

    Args:
        root: folder with the files in torchvision's layout.
        download: fetch them if they are not there.
        size: 28 as published, or 32 with a zero border.
    """

    name = "mnist"
    layout = "MNIST/raw/train-images-idx3-ubyte and its three companions"
    class_names: tuple[str, ...] = tuple("0123456789")
    source = "MNIST"

    def __init__(self, root: Path = ROOT, download: bool = False, size: Literal[28, 32] = 32):
        super().__init__(root, download)
        self.image_shape = (1, size, size)
        self.transform = "28×28 zero-padded to 32×32" if size == 32 else "none"

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        found = self.find(partial(official_set(self.source), self.root, train))
        return self.padded(found.data), found.targets.long()

    def padded(self, pixels: Tensor) -> Tensor:
        """uint8 (n, 28, 28) to (n, *image_shape)."""
        border = (self.image_shape[2] - 28) // 2
        return pad(pixels[:, None], (border,) * 4)


class KMNIST(MNIST):
    """Kuzushiji-MNIST: 70,000 cursive Japanese characters in ten classes."""

    name = "kmnist"
    layout = "KMNIST/raw/train-images-idx3-ubyte and its three companions"
    class_names = ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    source = "KMNIST"


class EMNIST(MNIST):
    """EMNIST: handwritten letters and digits, turned upright (the files hold them transposed).

    Args:
        root: folder with the files in torchvision's layout.
        download: fetch them if they are not there.
        size: 28 as published, or 32 with a zero border.
        part: which of the published parts.
    """

    name = "emnist"
    layout = "EMNIST/raw/emnist-…-train-images-idx3-ubyte and its companions"

    def __init__(
        self,
        root: Path = ROOT,
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
        found = self.find(partial(official_set("EMNIST"), self.root, self.part, train=train))
        return self.padded(found.data.mT), found.targets.long()


class USPS(TorchvisionData):
    """USPS: 9,298 handwritten digits of 16×16 pixels from envelopes."""

    name = "usps"
    image_shape = (1, 16, 16)
    layout = "usps.bz2 and usps.t.bz2"
    class_names = tuple("0123456789")

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        found = self.find(partial(official_set("USPS"), self.root, train))
        return torch.from_numpy(found.data)[:, None], torch.as_tensor(found.targets)


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
        found = self.find(partial(official_set(self.source), self.root, train))
        pixels = torch.from_numpy(found.data).permute(0, 3, 1, 2).contiguous()
        return pixels, torch.as_tensor(found.targets)


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
        found = self.find(partial(official_set("SVHN"), self.root, part))
        return torch.from_numpy(found.data).contiguous(), torch.from_numpy(found.labels).long()


class STL10(TorchvisionData):
    """STL-10: 13,000 labelled photographs of 96×96 pixels in ten classes, 100,000 without labels.

    Args:
        root: folder with the files in torchvision's layout.
        download: fetch them if they are not there.
        size: 96 as published, or a smaller side to resize to.
        unlabelled: train on the 100,000 photographs without labels (2.8 GB in memory at 96).
    """

    name = "stl-10"
    layout = "stl10_binary/"
    class_names = (
        "airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck",
    )  # fmt: skip

    def __init__(self, root: Path = ROOT, download: bool = False, size: int = 96, unlabelled: bool = False):
        super().__init__(root, download)
        self.image_shape = (3, size, size)
        self.transform = "none" if size == 96 else square_transform(size, 3)
        self.part = "unlabeled" if unlabelled else "train"

    def official(self, train: bool) -> tuple[Tensor, Tensor]:
        part = self.part if train else "test"
        found = self.find(partial(official_set("STL10"), self.root, part))
        labels = torch.from_numpy(np.asarray(found.labels)).long()
        return self._resized(torch.from_numpy(found.data)), labels

    def _resized(self, pixels: Tensor) -> Tensor:
        size = self.image_shape[2]
        if size == 96:
            return pixels.contiguous()
        return torch.stack([square(images.to_pillow(picture), size, 3) for picture in pixels])


class Flowers102(ImageData):
    """Oxford's flowers: 8,189 photographs in 102 classes, cropped and resized when first read.

    Splits: the official ones, 1,020 for training, 1,020 for validation, 6,149 for the test.

    Args:
        root: folder with the files in torchvision's layout.
        download: fetch them if they are not there.
        size: side of the square images in pixels.
    """

    name = "flowers-102"
    layout = "flowers-102/ with jpg/, imagelabels.mat and setid.mat"

    def __init__(self, root: Path = ROOT, download: bool = False, size: int = 64):
        self.root = root.expanduser()
        self.download = download
        self.image_shape = (3, size, size)
        self.transform = square_transform(size, 3)

    def split(self, name: SplitName) -> ArraySplit:
        part = "val" if name == "validation" else name
        make = partial(official_set("Flowers102"), self.root, part)
        found = find_files(make, self.root, self.download, self.layout)
        pairs = [(square(picture, self.image_shape[2], 3), label) for picture, label in found]
        pixels, labels = zip(*pairs, strict=True)
        return ArraySplit(torch.stack(pixels), torch.tensor(labels))
