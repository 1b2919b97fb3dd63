"""Class masks beside pictures: which file is the mask of which picture, and the classes of its values."""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from flows import images
from flows.core.bounds import ImageSize
from flows.core.checks import counted
from flows.data.archive import open_file, plain_name, read_text_of, visible_names
from flows.data.base import UNLABELLED
from flows.data.decode import decoding, named, opening, sides
from flows.errors import UserError

MASK_FOLDERS = re.compile(r"(label[_-]?)?masks?|annotations?|segmentations?(class)?|segm?", re.IGNORECASE)
"""Names of folders of masks."""
PICTURE_FOLDERS = re.compile(r"images?|imgs?|photos?|pictures?|jpe?gimages", re.IGNORECASE)
"""Names of folders of pictures that lie beside a folder of masks."""
ENDINGS = re.compile(r"[_-](masks?|segm?|labels?|gt)$", re.IGNORECASE)
"""Endings of the names of masks that those of their pictures do not have."""
SUFFIXES = (".png", ".bmp", ".gif", ".tif", ".tiff")
"""Suffixes of masks: a lossy format changes classes."""
CLASSES_FILE = "classes.txt"
NUMBERED = re.compile(r"\s*(\d{1,3})[\s:,;=]+(\S.*)")
"""Line of a class with its value."""
GREY_MODES = ("L", "P", "1")
"""Pillow's modes of masks: a value or a palette entry per pixel."""


@dataclass(frozen=True)
class MaskFiles:
    """Masks of pictures.

    Attributes:
        path: Folder or archive of the masks; in messages alone, name of a data set that has them otherwise.
        of: Name of a picture to the name of its mask.
        classes: Value in the masks to name of the class; empty if no names are given.
        alone: Names of masks without a picture.
        named_by: File or option that gives the names of the classes.
    """

    path: Path
    of: Mapping[str, str]
    classes: Mapping[int, str]
    alone: tuple[str, ...] = ()
    named_by: str = CLASSES_FILE


@dataclass(frozen=True)
class Masks:
    """Class masks of the images of a data set.

    Attributes:
        classes: Names of the classes.
        values: uint8 (n, H, W), index of the class of every pixel, or `UNLABELLED`.
        found: Number of images that have a mask.
    """

    classes: tuple[str, ...]
    values: Tensor
    found: int


def pair_masks(path: Path, pictures: Sequence[str], others: Sequence[str]) -> MaskFiles | None:
    """Find masks among the pictures of a folder: those in a folder called masks, of a picture's name.

    Args:
        path: Folder or archive.
        pictures: Relative names of its pictures, masks among them.
        others: Relative names of its other files.

    Returns:
        Masks, or None if there are none.
    """
    masks = [name for name in pictures if mask_folder(name) is not None and is_mask(name)]
    keys = {key_of_mask(name): name for name in masks}
    paired = set(masks)
    of = {
        name: keys[key] for name in pictures if name not in paired and (key := key_of_picture(name)) in keys
    }
    if not of:
        return None
    taken = set(of.values())
    return MaskFiles(path, of, find_classes(path, others), tuple(name for name in masks if name not in taken))


def pair_masks_in(masks: Path, pictures: Sequence[str]) -> MaskFiles:
    """Masks of pictures in a folder or archive of their own, with the pictures' relative names.

    Raises:
        UserError: None of the files there has the name of a picture.
    """
    names = visible_names(masks).names
    files = {key_of_mask(name): name for name in names if is_mask(name)}
    of = {name: files[key] for name in pictures if (key := key_of_picture(name)) in files}
    if not of:
        raise UserError(f"data.masks: no file in {masks} has the name of a picture, such as {pictures[0]}")
    taken = set(of.values())
    alone = tuple(name for name in files.values() if name not in taken)
    return MaskFiles(masks, of, find_classes(masks, names), alone)


def is_mask(name: str) -> bool:
    """Whether a file may be a mask, by its suffix."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES


def mask_folder(name: str) -> int | None:
    """Place of the folder of masks in a relative name; None if it is in none."""
    folders = PurePosixPath(name).parts[:-1]
    return next((i for i, part in enumerate(folders) if MASK_FOLDERS.fullmatch(part)), None)


def key_of_mask(name: str) -> str:
    """Key of a mask: its path without the folder of masks, the suffix and an ending such as _mask."""
    path = PurePosixPath(plain_name(name))
    place = mask_folder(name)
    folders = [part for i, part in enumerate(path.parts[:-1]) if i != place]
    return "/".join([*folders, ENDINGS.sub("", path.stem)])


def key_of_picture(name: str) -> str:
    """Key of a picture: its path without a folder called images, and without the suffix."""
    path = PurePosixPath(plain_name(name))
    folders = list(path.parts[:-1])
    place = next((i for i, part in enumerate(folders) if PICTURE_FOLDERS.fullmatch(part)), None)
    return "/".join([*(part for i, part in enumerate(folders) if i != place), path.stem])


# Classes ------------------------------------------------------------------------------------------


def find_classes(path: Path, others: Sequence[str]) -> dict[int, str]:
    """Classes by their values, from the topmost classes.txt; empty if there is none."""
    files = [name for name in others if PurePosixPath(name).name.lower() == CLASSES_FILE]
    if not files:
        return {}
    name = min(files, key=lambda each: (len(PurePosixPath(each).parts), each))
    return read_classes(name, read_text_of(path, name))


def read_classes(name: str, text: str) -> dict[int, str]:
    """Classes by their values: one per line, from 0 on, or each with its value before it: `255 leaf`.

    Raises:
        UserError: A name or a value occurs twice, or the file is empty.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    numbered = [NUMBERED.fullmatch(line) for line in lines]
    if all(numbered):
        pairs = [(int(match[1]), match[2].strip()) for match in numbered if match]
    else:
        pairs = list(enumerate(lines))
    classes = dict(pairs)
    if not classes or len(classes) < len(pairs) or len(set(classes.values())) < len(pairs):
        raise UserError(f"{name}: expected one class per line, each once, got {len(pairs)} lines")
    if max(classes) > 255:
        raise UserError(f"{name}: expected values from 0 to 255, got {max(classes)}")
    return classes


# Pixels -------------------------------------------------------------------------------------------


class MaskPixels(NamedTuple):
    """Values of a mask.

    Attributes:
        values: uint8 (H, W), resized; each pixel is its nearest neighbour.
        present: bool (256,), values of the whole mask.
        shape: (width, height) of the whole mask.
    """

    values: Tensor
    present: Tensor
    shape: tuple[int, int]


class Coding(NamedTuple):
    """Classes of masks.

    Attributes:
        classes: Names of the classes.
        table: int64 (256,), index of the class of every value, or `UNLABELLED`; −1 for values of no class.
    """

    classes: tuple[str, ...]
    table: Tensor

    def __call__(self, values: Tensor) -> Tensor:
        """Class of every pixel, uint8, of values, uint8 of the same shape."""
        return self.table[values.long()].to(torch.uint8)


def read_masks(
    masks: MaskFiles, pictures: Sequence[str], shapes: Mapping[str, tuple[int, int]], size: ImageSize
) -> Masks:
    """Read the masks of pictures, cropped and resized as these are, each pixel by its nearest neighbour.

    Args:
        masks: Files of the masks.
        pictures: Names of the n pictures.
        shapes: Name of a picture to the (width, height) of its file, upright.
        size: Size of the images.

    Raises:
        UserError: A mask cannot be read, has another size than its picture, or values of no class.
    """
    rows = [row for row, name in enumerate(pictures) if name in masks.of]
    with ThreadPoolExecutor() as threads:
        read = list(threads.map(lambda row: read_mask_file(masks, pictures[row], size), rows))
    coding = coding_of(masks, {pictures[row]: mask for row, mask in zip(rows, read, strict=True)}, shapes)
    return stacked(coding, len(pictures), dict(zip(rows, read, strict=True)), size)


def read_mask_file(masks: MaskFiles, picture: str, size: ImageSize, whole: bool = False) -> MaskPixels:
    """Read the mask of a picture; see `mask_pixels` for the arguments and errors."""
    name = masks.of[picture]
    with named(name), opening(open_file(masks.path, name)) as opened:
        return mask_pixels(opened, f"{masks.path}: {name}", size, whole)


def mask_pixels(picture: Image.Image, name: str, size: ImageSize, whole: bool = False) -> MaskPixels:
    """Values of a mask, resized.

    Args:
        picture: Mask, of which the header at least is read.
        name: Name of the mask in messages.
        size: Size of the result.
        whole: Whether all of the mask is resized; otherwise its centre box with the aspect ratio of `size`.

    Raises:
        BrokenPicture: The pixels cannot be decoded.
        UserError: The pixels are colours instead of numbers of classes.
    """
    if picture.mode not in GREY_MODES:
        raise UserError(
            f"{name} has Pillow's mode {picture.mode}; expected one value per pixel, grey or with a palette, "
            "that is the number of a class"
        )
    with decoding():
        picture.load()
    grey = picture.convert("L") if picture.mode == "1" else picture
    present = torch.tensor(grey.histogram()[:256]) > 0
    height, width = sides(size)
    box = None if whole else images.centre_box(grey, height, width)
    resized = grey.resize((width, height), Image.Resampling.NEAREST, box=box)
    values = torch.frombuffer(bytearray(resized.tobytes()), dtype=torch.uint8)
    return MaskPixels(values.reshape(height, width), present, picture.size)


def coding_of(
    masks: MaskFiles, read: Mapping[str, MaskPixels], shapes: Mapping[str, tuple[int, int]]
) -> Coding:
    """Classes of all masks of a data set.

    Args:
        masks: Masks with their names and the classes that are known.
        read: Name of a picture to its mask.
        shapes: Name of a picture to its (width, height), upright.

    Raises:
        UserError: A mask has another size than its picture, or values of no class.
    """
    wrong = [
        f"{masks.of[name]} {mask.shape[0]}×{mask.shape[1]}, {name} {shapes[name][0]}×{shapes[name][1]}"
        for name, mask in read.items()
        if mask.shape != shapes[name]
    ]
    if wrong:
        raise UserError(f"{masks.path}: {counted(wrong, 'masks of another size than their pictures')}")
    present = torch.zeros(256, dtype=torch.bool)
    for mask in read.values():
        present |= mask.present
    coding = Coding(*classes_of(masks, present))
    check_values([masks.of[name] for name in read], [m.present for m in read.values()], coding.table, masks)
    return coding


def stacked(coding: Coding, n: int, read: Mapping[int, MaskPixels], size: ImageSize) -> Masks:
    """Masks of n images, of which those in `read`, by row, have one."""
    values = torch.full((n, *sides(size)), UNLABELLED, dtype=torch.uint8)
    for row, mask in read.items():
        values[row] = coding(mask.values)
    return Masks(coding.classes, values, len(read))


def classes_of(masks: MaskFiles, present: Tensor) -> tuple[tuple[str, ...], Tensor]:
    """Names of the classes, and the index of the class of every value, int64 (256,); −1 for none.

    Without names, every value is a class; value 0 is called background. With names, 255 is the second of
    two classes if there are no other values but 0, and stands for pixels without a label otherwise, unless it
    has a name.
    """
    values = [value for value in range(256) if present[value]]
    known = masks.classes or {value: "background" if value == 0 else f"class {value}" for value in values}
    order = sorted(known)
    table = torch.full((256,), -1)
    for index, value in enumerate(order):
        table[value] = index
    if UNLABELLED not in known:
        is_switch = set(values) <= {0, UNLABELLED} and order == [0, 1]
        table[UNLABELLED] = 1 if is_switch else UNLABELLED
    return tuple(known[value] for value in order), table


def check_values(names: Sequence[str], present: Sequence[Tensor], table: Tensor, masks: MaskFiles) -> None:
    """Raise UserError if a mask has a value that is of no class."""
    unknown = table < 0
    wrong = [
        f"{name} has {', '.join(str(int(value)) for value in torch.nonzero(values & unknown)[:3])}"
        for name, values in zip(names, present, strict=True)
        if (values & unknown).any()
    ]
    if wrong:
        listed = ", ".join(f"{value} {name}" for value, name in sorted(masks.classes.items())[:4])
        raise UserError(
            f"{masks.path}: {counted(wrong, 'masks with values of no class')}; {masks.named_by} has {listed}"
            f"{', …' if len(masks.classes) > 4 else ''}"
        )
