"""LSUN (Yu et al. 2015): millions of photographs of rooms, towers and churches, in LMDB files."""

import io
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from PIL import Image
from torch import Tensor

from flows import images
from flows.core.bounds import Bins, Side
from flows.data.base import ImageData, SplitName, hold_out
from flows.data.decode import LazySplit, decode
from flows.errors import DataMissing, missing_extra
from flows.storage.files import StrPath, expand

__all__ = ["LSUN"]

if TYPE_CHECKING:
    import lmdb


class LSUN(ImageData):
    """One category of LSUN, resized to a short side of 1.5 × `size` and cropped to the central square.

    RealNVP and Glow resize to 96 pixels and crop 64×64 at random; here the crop is fixed. Splits: the
    training file less 0.1 % for validation (fixed permutation); the file `…_val_lmdb`, 300 photographs, for
    test. Images are decoded on access.

    Args:
        root: Folder with `<category>_train_lmdb` and `<category>_val_lmdb`.
        category: Name of one of the ten categories.
        size: Side of the square images in pixels.
        bins: Number of grey levels that a model distinguishes; 32 for 5-bit images.
    """

    name = "lsun"

    def __init__(
        self,
        root: StrPath = Path("~/.cache/flows"),
        category: Literal[
            "bedroom",
            "bridge",
            "church_outdoor",
            "classroom",
            "conference_room",
            "dining_room",
            "kitchen",
            "living_room",
            "restaurant",
            "tower",
        ] = "bedroom",
        size: Side = 64,
        bins: Bins = 256,
    ):
        self.root = expand(root)
        self.category = category
        self.size = size
        self.bins = bins
        self.image_shape = (3, size, size)
        self.transform = f"{category}, short side shrunk to {size * 3 // 2} (Lanczos), central {size}×{size}"

    def split(self, name: SplitName) -> LazySplit:
        file = self.root / f"{self.category}_{'val' if name == 'test' else 'train'}_lmdb"
        keys = read_keys(file)
        if name != "test":
            train, validation = hold_out(len(keys), share=0.001)
            keys = [keys[i] for i in (train if name == "train" else validation).tolist()]
        labels = torch.full((len(keys),), -1)
        return LazySplit(partial(self._decode, file, keys), labels, names=partial(name_of_key, file, keys))

    def _decode(self, file: Path, keys: list[bytes], index: int) -> Tensor:
        with open_lmdb(file).begin() as transaction:
            content = transaction.get(keys[index], b"")
        return images.from_pillow(central(decode(io.BytesIO(content)), self.size), 3)


def name_of_key(file: Path, keys: list[bytes], index: int) -> str:
    """Name of a picture of a database in messages."""
    return str(file / keys[index].decode(errors="replace"))


def central(picture: Image.Image, size: int) -> Image.Image:
    """Return the central square of `size` pixels after resizing the short side to 1.5 × `size`."""
    side = min(picture.size) * size / (size * 3 // 2)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    box = (left, top, left + side, top + side)
    return images.flatten(picture, 3).resize((size, size), Image.Resampling.LANCZOS, box)


# torchvision's reader stores its list of keys in the working directory, under a name that is the same for
# different roots, and cannot be sent to the workers of a loader; the functions below replace it.


def read_keys(file: Path) -> list[bytes]:
    """Read the keys of all pictures, sorted."""
    with open_lmdb(file).begin() as transaction:
        return list(transaction.cursor().iternext(keys=True, values=False))


def open_lmdb(file: Path) -> "lmdb.Environment":
    """Return the environment opened by this process; LMDB forbids use of one opened before a fork."""
    return _opened(file, os.getpid())


def close_all() -> None:
    """Close all environments, also before a fork: LMDB refuses one in a child that its parent has open."""
    for environment in _open.values():
        environment.close()
    _open.clear()


_open: dict[tuple[Path, int], "lmdb.Environment"] = {}
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=close_all)


def _opened(file: Path, process: int) -> "lmdb.Environment":
    try:
        import lmdb
    except ImportError as error:
        raise missing_extra("LSUN needs the package `lmdb`", "data", error) from error
    try:
        if (file, process) not in _open:
            _open[file, process] = lmdb.open(
                str(file), readonly=True, lock=False, readahead=False, create=False
            )
        return _open[file, process]
    except lmdb.Error as error:
        raise DataMissing(
            f"no LSUN at {file} ({error}); unpack the zip archive of the category there, or set data.root"
        ) from error
