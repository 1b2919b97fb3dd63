"""Fashion-MNIST (Xiao et al. 2017): 70,000 grey images of clothes in ten balanced classes."""

import gzip
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from flows.data.base import ArraySplit, ImageData, SplitName, hold_out
from flows.errors import DataMissing
from flows.storage.files import StrPath, expand, reading

__all__ = ["Fashion"]

DEBIAN = Path("/usr/share/datasets/fashion-mnist")


class Fashion(ImageData):
    """Fashion-MNIST, zero-padded from 28×28 to 32×32.

    Sources, in this order: Debian's package `dataset-fashion-mnist`, torchvision's files under `root`, and a
    download if `download` is set. Splits: 57,000 / 3,000 of the official training set (fixed permutation),
    and the official 10,000 test images.
    """

    name = "fashion-mnist"
    image_shape = (1, 32, 32)
    transform = "28×28 zero-padded to 32×32"
    class_names = (
        "t-shirt", "trouser", "pullover", "dress", "coat",
        "sandal", "shirt", "sneaker", "bag", "ankle boot",
    )  # fmt: skip
    training_images = 57_000

    def __init__(self, root: StrPath = Path("~/.cache/flows"), download: bool = True):
        self.root = expand(root)
        self.download = download

    def split(self, name: SplitName) -> ArraySplit:
        pixels, labels = self._official(train=name != "test")
        if name != "test":
            train, validation = hold_out(len(labels), share=0.05)
            chosen = train if name == "train" else validation
            pixels, labels = pixels[chosen], labels[chosen]
        return ArraySplit(pad(pixels, (2, 2, 2, 2)), labels)

    def _official(self, train: bool) -> tuple[Tensor, Tensor]:
        """Images uint8 (n, 1, 28, 28) and labels int64 (n,) in the published order."""
        if DEBIAN.is_dir():
            stem = "train" if train else "t10k"
            pixels = read_idx(DEBIAN / f"{stem}-images-idx3-ubyte.gz", header=16)
            labels = read_idx(DEBIAN / f"{stem}-labels-idx1-ubyte.gz", header=8)
            return pixels.view(-1, 1, 28, 28), labels.long()
        try:
            from torchvision import datasets  # importing takes a second

            dataset = datasets.FashionMNIST(self.root, train, download=self.download)
        except (RuntimeError, OSError) as error:
            raise DataMissing(
                f"Fashion-MNIST is neither at {DEBIAN} nor under {self.root}, and was not downloaded "
                f"({error}); run `apt install dataset-fashion-mnist`, or unpack torchvision's "
                "FashionMNIST/raw under data.root"
            ) from error
        return dataset.data[:, None], dataset.targets.long()


def read_idx(path: Path, header: int) -> Tensor:
    """Read the bytes of a gzipped IDX file after its header, uint8 (n,)."""
    with reading(path, "gzipped IDX file"):
        return torch.frombuffer(bytearray(gzip.decompress(path.read_bytes())[header:]), dtype=torch.uint8)
