"""ImageNet at 32×32 or 64×64 pixels: 1,281,167 training and 50,000 validation photographs."""

import zipfile
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from flows.data.base import Batch, ImageData, Split, SplitName, hold_out
from flows.errors import DataMissing, UserError
from flows.storage.files import StrPath, expand, reading

__all__ = ["ImageNetSmall"]


class ImageNetSmall(ImageData):
    """Downsampled ImageNet from its official npz files: train_data_batch_1 to 10 and val_data.

    Two generations have this name and differ in how the photographs were resized; their likelihoods are not
    comparable. RealNVP and Glow report results on the older one (van den Oord et al. 2016), which was
    published as PNG files: read those with `Folder`. The npz files are by Chrabaszcz et al. 2017.

    Splits: the training set less 1 % for validation (fixed permutation); the official validation set for
    test. Labels count from zero in the class order of the files. Files saved without compression stay on
    disk and are memory-mapped, so that all processes share them; others are read into memory, 3.9 GB at
    32×32 and 15.7 GB at 64×64.

    Args:
        path: Folder with the npz files.
        size: Side of the images in the files, in pixels.
        generation: Generation of the data set in the files; only recorded.
    """

    name = "imagenet-small"

    def __init__(
        self,
        path: StrPath = Path("~/.cache/flows/imagenet32"),
        size: Literal[32, 64] = 32,
        generation: Literal["2016-png", "2017-npz"] = "2017-npz",
    ):
        self.path = expand(path)
        self.size = size
        self.image_shape = (3, size, size)
        self.transform = f"downsampled to {size}×{size} by its publishers, generation {generation}"

    def split(self, name: SplitName) -> "PartedSplit":
        if name == "test":
            parts, labels = [self._images("val_data.npz")], self._labels("val_data.npz")
            return PartedSplit(parts, labels, torch.arange(len(labels)))
        parts, labels = self._train
        kept, held_out = hold_out(len(labels), share=0.01)
        return PartedSplit(parts, labels, kept if name == "train" else held_out)

    @cached_property
    def _train(self) -> tuple[list[np.ndarray], Tensor]:
        """Images of the ten parts and labels of all of them, shared by training and validation."""
        files = [f"train_data_batch_{i}.npz" for i in range(1, 11)]
        parts = [self._images(file) for file in files]
        return parts, torch.cat([self._labels(file) for file in files])

    def _images(self, file: str) -> np.ndarray:
        path = self._file(file)
        pixels = read_member(path, "data")
        expected = 3 * self.size**2
        if pixels.dtype != np.uint8 or pixels[0].size != expected:
            raise UserError(
                f"{self.path / file}: expected rows of {expected} bytes for size {self.size}, got "
                f"{pixels[0].size} of {pixels.dtype}; set data.size or data.path"
            )
        return pixels.reshape(-1, 3, self.size, self.size)

    def _labels(self, file: str) -> Tensor:
        """Labels, int64 (n,), from zero; the files count from one."""
        return torch.from_numpy(read_member(self._file(file), "labels").astype(np.int64)) - 1

    def _file(self, file: str) -> Path:
        if not (self.path / file).is_file():
            raise DataMissing(
                f"no {file} in {self.path}; download the npz files of downsampled ImageNet from its web "
                "site (for registered users) and unpack them there, or set data.path"
            )
        return self.path / file


class PartedSplit(Split):
    """Split of images in several arrays, which are neither joined nor copied.

    Args:
        parts: Arrays of images, uint8 (n of the part, C, H, W).
        labels: int64 (n of all parts,).
        rows: int64 (n of this split,), indices into the concatenated parts.
    """

    def __init__(self, parts: list[np.ndarray], labels: Tensor, rows: Tensor):
        self.parts = parts
        self.ends = np.cumsum([len(part) for part in parts])
        self.labels = labels[rows]
        self.rows = rows.numpy()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitems__(self, indices: list[int]) -> Batch:
        pictures = torch.from_numpy(np.stack([self._picture(self.rows[i]) for i in indices]))
        keys = torch.as_tensor(indices)
        return self.batch(pictures, self.labels[keys], keys)

    def _picture(self, row: int) -> np.ndarray:
        part = int(np.searchsorted(self.ends, row, side="right"))
        return self.parts[part][row - self.ends[part]]


# npz files ----------------------------------------------------------------------------------------


HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Version of an npy file to the function that reads its header."""


def read_member(path: Path, name: str) -> np.ndarray:
    """Load an array of an npz file: memory-mapped if it is uncompressed, else read.

    Raises:
        UserError: The file is no npz file or has no such array.
    """
    with reading(path, "npz file"), zipfile.ZipFile(path) as archive:
        member = archive.getinfo(f"{name}.npy")
        with archive.open(member) as opened:
            if member.compress_type != zipfile.ZIP_STORED:
                return np.lib.format.read_array(opened)
            shape, fortran, dtype = HEADERS[np.lib.format.read_magic(opened)](opened)
            header = opened.tell()
    order: Literal["F", "C"] = "F" if fortran else "C"
    start = member_start(path, member) + header
    with reading(path, "npz file"):
        return np.memmap(path, dtype, mode="r", offset=start, shape=shape, order=order)


def member_start(path: Path, member: zipfile.ZipInfo) -> int:
    """Return the byte offset of an uncompressed member's content in its archive.

    The content follows a local header of 30 bytes, a name and an extra field. The header ends with the
    lengths of name and extra field; the latter can differ from the length in the archive's directory.
    """
    with open(path, "rb") as opened:
        opened.seek(member.header_offset + 26)
        name, extra = (int.from_bytes(opened.read(2), "little") for _ in range(2))
    return member.header_offset + 30 + name + extra
