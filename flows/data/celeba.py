"""CelebA (Liu et al. 2015): 202,599 aligned faces of 178×218 pixels with 40 attributes."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from flows.core.bounds import Bins, Side
from flows.data.base import Attribute, ImageData, SplitName
from flows.data.decode import LazySplit, decode, resized
from flows.data.torchvision_sets import ROOT, find_files, official_set
from flows.storage.files import StrPath, expand

__all__ = ["CelebA"]

# Crop of rows 40 to 187 and columns 15 to 162, as in RealNVP's code: (left, top, right, bottom).
BOX = (15, 40, 163, 188)

LAYOUT = (
    "celeba/ with the folder img_align_celeba/ (000001.jpg …) and the files list_attr_celeba.txt, "
    "list_eval_partition.txt, identity_CelebA.txt, list_bbox_celeba.txt and "
    "list_landmarks_align_celeba.txt"
)


class CelebA(ImageData):
    """CelebA, cropped to the face as for RealNVP and resized.

    Splits: the official ones, 162,770 for training, 19,867 for validation, 19,962 for test.
    `Split.attributes` has the 40 attributes. The download uses a file host that often refuses; in that case
    put the files from the data set's own page into `root`/celeba by hand. Images are decoded on access.

    Args:
        root: Folder with the files in torchvision's layout.
        download: Whether to download missing files.
        size: Side of the square images in pixels, 148 for no resizing.
        bins: Number of grey levels that a model distinguishes; 32 for 5-bit faces.
    """

    name = "celeba"
    attributes = tuple(
        Attribute(name, "binary")
        for name in """
        5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose
        Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee
        Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache Narrow_Eyes
        No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling
        Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace
        Wearing_Necktie Young
        """.split()
    )

    def __init__(self, root: StrPath = ROOT, download: bool = False, size: Side = 64, bins: Bins = 256):
        self.root = expand(root)
        self.download = download
        self.size = size
        self.bins = bins
        self.image_shape = (3, size, size)
        self.transform = f"rows 40 to 187, columns 15 to 162, resized to {size}×{size} (Lanczos)"

    def split(self, name: SplitName) -> LazySplit:
        part = "valid" if name == "validation" else name
        dataset = find_files(
            partial(official_set("CelebA"), self.root, part), self.root, self.download, LAYOUT
        )
        folder = self.root / "celeba" / "img_align_celeba"
        decode = partial(self._decode, folder, dataset.filename)
        labels = torch.full((len(dataset.filename),), -1)
        return LazySplit(decode, labels, dataset.attr.byte(), dataset.filename)

    def _decode(self, folder: Path, names: list[str], index: int) -> Tensor:
        return resized(decode(folder / names[index]).crop(BOX), self.size, 3)
