"""Your own pictures in a folder or an archive, with the labels, values and masks that lie beside them."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor

from flows.core.bounds import Bins, ImageSize, ShareBelowOne
from flows.core.checks import counted
from flows.data.annotations import Annotations, find_annotations
from flows.data.archive import Listing, file_marks, open_file, visible_names
from flows.data.base import ArraySplit, Attribute, ImageData, Split, SplitName, fair_order
from flows.data.columns import ColumnKind, beside_labels, folder_attribute, values_beside_labels
from flows.data.decode import BrokenPicture, LazySplit, decode_resized, resize_transform, sides, verify
from flows.data.formats import extensions, package_for, suffix_of
from flows.data.layout import Layout
from flows.data.masks import Masks, read_masks
from flows.errors import UserError
from flows.storage.files import StrPath, expand

__all__ = ["Folder"]

T = TypeVar("T")

IN_MEMORY_BYTES = 2**30


class Folder(ImageData):
    """Pictures of any size below a folder or in a zip or tar archive, centre-cropped and resized.

    Splits: those of a column called split; else, if the folder has subfolders for training and for validation
    or test, in any case (`train`, `training`; `validation`, `valid`, `val`, `dev`; `test`, `testing`), these;
    pictures elsewhere are not used, and a split without a folder is taken from the training folder. Otherwise
    each picture is assigned by a hash of its name, so that adding pictures moves no others. A held-out split
    that would be empty takes one picture of the training split. The order within a split is that of another
    hash: the first n pictures are a fair sample of all classes.

    Labels: the first level of subfolders (below `train` and `test`, if these exist), if there are at least
    two, or else a column called label, class or category; −1 for pictures without one. Hidden files are
    ignored.

    Attributes: the columns of `metadata.csv`, `metadata.tsv` or `metadata.jsonl` with `file_name`, as Hugging
    Face's image folders have them, of other tables in which a column names the pictures, and of CelebA's
    lists; see `read_column` for their kinds. A class by subfolders is one more attribute.

    Masks: pictures in a folder called masks, of the same names; see `pair_masks`. Their values are those of
    classes, which `classes.txt` names.

    Args:
        path: Path of the folder or archive.
        size: Side of the square images in pixels, or height and width.
        channels: Number of channels, 3 for RGB, 1 for grey.
        validation: Share of the pictures held out for validation.
        test: Share of the pictures held out for test.
        in_memory: Whether to decode all pictures once and keep them; None does so below 1 GiB.
        bins: Number of grey levels that a model distinguishes; 32 for Glow's 5-bit faces.
        table: Table with a row for each picture (.csv, .tsv, .jsonl); None takes those in the folder.
        columns: Kinds of columns whose values are taken for something else: `{stars: category}`.
        masks: Folder or archive of the masks; None takes those in the folder.

    Attributes:
        unreadable: "name: reason" of every file with a picture's extension that cannot be read. Such files
            are left out, with a warning. Without `in_memory` only headers are checked in advance, and a
            truncated picture is left out when it is met; see `LazySplit`.

    Raises:
        DataMissing: Nothing is at `path`.
        UserError: `path` holds no readable picture, a split would be empty, or a table or mask is not usable.
    """

    name = "folder"
    path_arguments = ("path", "table", "masks")

    def __init__(
        self,
        path: StrPath,
        size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        validation: ShareBelowOne = 0.05,
        test: ShareBelowOne = 0.05,
        in_memory: bool | None = None,
        bins: Bins = 256,
        table: StrPath | None = None,
        columns: dict[str, ColumnKind] | None = None,
        masks: StrPath | None = None,
    ):
        if min(validation, test) < 0 or validation + test >= 1:
            raise UserError(
                "validation and test: expected shares ≥ 0 that add up to less than 1, got "
                f"{validation} and {test}"
            )
        self.path = expand(path)
        self.size = size
        self.channels = channels
        self.shares = (validation, test)
        self.in_memory = in_memory
        self.bins = bins
        self.table = None if table is None else expand(table)
        self.columns = columns or {}
        self.masks = None if masks is None else expand(masks)
        self.image_shape = (channels, *sides(size))
        self.transform = resize_transform(size, channels)

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the labels: the subfolders, sorted, or the classes of a column."""
        column = self._annotations.label
        return self.layout.class_names or (column.classes if column else ())

    @cached_property
    def attributes(self) -> tuple[Attribute, ...]:  # type: ignore[override]
        """Attributes of the tables, and the class by subfolders before them; empty without a table."""
        own = self._annotations.attributes
        return beside_labels(folder_attribute(own), self.layout.class_names, own)

    @cached_property
    def mask_classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Classes of the masks, by classes.txt without reading a mask; empty without masks."""
        files = self._annotations.masks
        if files is not None and files.classes:
            return tuple(files.classes[value] for value in sorted(files.classes))
        return self.class_masks.classes if self.class_masks else ()

    def notes(self) -> list[str]:
        """Folders, tables and masks that were taken for something, and the number of files left out."""
        listed = self.layout.listed
        taken = [f"{folder}/ is the {split} split" for folder, split in self.layout.folders.items()]
        borrowed = []
        for name, (file, shared) in self._borrowed.items():
            too = ", and is both held out and trained on" if shared else ""
            borrowed.append(f"no picture falls into the {name} split: {file} is taken for it{too}")
        unlisted = [] if listed is None else [name for name in self.layout.names if name not in listed]
        return [
            *(taken if listed is None else ["splits are those of the table"]),
            *([counted(unlisted, "pictures without a split in the table")] if unlisted else []),
            *borrowed,
            *self._annotations.notes(),
            *not_read(self._annotations.others, self._listing.missed),
            *self._size_notes(),
        ]

    def _size_notes(self) -> list[str]:
        """Sentence on pictures that are smaller than the images."""
        small, height, width = self.contents.small, *sides(self.size)
        of = f"{small:,} of {len(self.contents.readable):,} pictures"
        return [f"{of} are smaller than {width}×{height} and were enlarged"] if small else []

    @property
    def training_images(self) -> int:  # type: ignore[override]
        """Number of training pictures by their names; some of them may not be readable."""
        return sum(self.layout.split_of(name) == "train" for name in self.layout.names)

    def test_note(self) -> str:
        """Return a sentence if the test split shares its picture with the training split."""
        file, shared = self._borrowed.get("test", ("", False))
        return f"the test split is {file} alone, which was trained on" if shared else ""

    @property
    def unreadable(self) -> tuple[str, ...]:
        """Files that cannot be read, "name: reason" each."""
        return self.contents.unreadable

    def split(self, name: SplitName) -> Split:
        readable, pixels = self.contents.readable, self.contents.pixels
        names = self._names_of(name)
        row_of = {file: row for row, file in enumerate(readable)}
        rows = [row_of[file] for file in names]
        labels, attributes = self.labels_of(names), self.values_of(names)
        masks = self.class_masks.values[rows] if self.class_masks else None
        if pixels is not None:
            return ArraySplit(pixels[rows], labels, attributes, names, masks)
        split = LazySplit(partial(self._decode_at, names), labels, attributes, names)
        split.marks, split.masks = file_marks(self.path, names), masks
        return split

    def _names_of(self, name: SplitName) -> list[str]:
        """Names of the pictures of a split, in fair order; raises UserError if there is none."""
        readable = self.contents.readable
        own = {file for file in readable if self.layout.split_of(file) == name}
        lent = {file for file, shared in self._borrowed.values() if not shared} if name == "train" else set()
        taken = {self._borrowed[name][0]} if name in self._borrowed else set()
        names = [file for file in readable if file in (own - lent) | taken]
        if not names:
            raise UserError(
                f"{self.path}: none of its {len(readable)} pictures is in the {name} split; set data.{name} "
                "to the share that is held out"
            )
        return [names[i] for i in fair_order(names)]

    def labels_of(self, names: Sequence[str]) -> Tensor:
        """Labels of pictures, int64 (n,)."""
        column = self._annotations.label
        if self.layout.class_names or column is None:
            return torch.tensor([self.layout.label(name) for name in names])
        row_of = {name: row for row, name in enumerate(self._annotations.pictures)}
        return column.labels()[[row_of[name] for name in names]]

    def values_of(self, names: Sequence[str]) -> Tensor | None:
        """Attributes of pictures, float32 (n, number of attributes); None without a table."""
        own = self._annotations.values(names)
        if own is None or not self.layout.class_names:
            return own
        return values_beside_labels(torch.tensor([self.layout.label(name) for name in names]), own)

    @cached_property
    def _borrowed(self) -> dict[SplitName, tuple[str, bool]]:
        """Picture that each split without one of its own takes, and whether it is held out and trained on.

        It is the one with the smallest hash, so that it goes back to training only when a picture of the
        split's own arrives. One picture is shared by all splits, and so is the last one that is left.
        """
        readable = self.contents.readable
        of = {file: self.layout.split_of(file) for file in readable}
        training = [file for file in readable if of[file] == "train"]
        borrowed: dict[SplitName, tuple[str, bool]] = {}
        if not training:  # all pictures fall into the held-out splits; the first is trained on
            training = list(readable)
            borrowed["train"] = (readable[0], True)
        training = [training[i] for i in fair_order([f"lent {file}" for file in training])]
        shares: dict[SplitName, float] = {"validation": self.shares[0], "test": self.shares[1]}
        for name, share in shares.items():
            if share and name not in of.values() and training:
                number = len(borrowed.keys() - {"train"})
                shared = len(training) - number < 2
                borrowed[name] = (training[min(number, len(training) - 1)], shared)
        return borrowed

    @cached_property
    def _listing(self) -> Listing:
        return visible_names(self.path)

    @cached_property
    def _annotations(self) -> Annotations:
        """Pictures, with what lies beside them."""
        names = self._listing.names
        found = find_annotations(self.path, names, self.table, self.masks, self.columns)
        if not found.pictures:
            known = " ".join(sorted(extensions()))
            beside = not_read(found.others, self._listing.missed)
            raise UserError(
                f"no image files ({known}) under {self.path}{'; ' if beside else ''}{'; '.join(beside)}"
            )
        return found

    @cached_property
    def layout(self) -> Layout:
        """Splits and labels of the pictures by their names."""
        return Layout(self._annotations.pictures, *self.shares, self._annotations.splits)

    @cached_property
    def class_masks(self) -> Masks | None:
        """Masks of the readable pictures, in their order; None without masks."""
        files = self._annotations.masks
        if files is None:
            return None
        contents = self.contents
        return read_masks(files, contents.readable, contents.shapes, self.size)

    @cached_property
    def contents(self) -> "Contents":
        """Pictures that can be read, decoded if they are kept in memory."""
        height, width = sides(self.size)
        n_bytes = len(self.layout.names) * self.channels * height * width
        in_memory = n_bytes < IN_MEMORY_BYTES if self.in_memory is None else self.in_memory
        check: Callable[[str], Checked] = self.decode if in_memory else self._verify
        sound, unreadable = sound_of(check, self.layout.names)
        report_unreadable(self.path, unreadable, len(self.layout.names))
        shapes = {name: shape for name, (_, shape) in sound.items()}
        small = sum(shape[0] < width or shape[1] < height for shape in shapes.values())
        pixels = [picture for picture, _ in sound.values() if picture is not None]
        return Contents(tuple(sound), unreadable, torch.stack(pixels) if in_memory else None, small, shapes)

    def decode(self, name: str) -> tuple[Tensor, tuple[int, int]]:
        """Decode a picture: uint8 (C, H, W), and the (width, height) of its file."""
        return decode_resized(open_file(self.path, name), self.size, self.channels)

    def _decode_at(self, names: list[str], index: int) -> Tensor:
        return self.decode(names[index])[0]

    def _verify(self, name: str) -> tuple[None, tuple[int, int]]:
        return None, verify(open_file(self.path, name))


Checked = tuple[Tensor | None, tuple[int, int]]
"""Pixels of a picture, if it was decoded, and (width, height) of its file, upright."""


class Contents(NamedTuple):
    """Pictures of a folder.

    Attributes:
        readable: Names of the readable pictures.
        unreadable: "name: reason" of the others.
        pixels: uint8 (n, C, size, size) of the readable ones, if they are kept in memory.
        small: Number of readable pictures that are smaller than the images.
        shapes: (width, height) of the file of each readable picture, upright.
    """

    readable: tuple[str, ...]
    unreadable: tuple[str, ...]
    pixels: Tensor | None
    small: int
    shapes: Mapping[str, tuple[int, int]]


def sound_of(check: Callable[[str], T], names: Sequence[str]) -> tuple[dict[str, T], tuple[str, ...]]:
    """Results of `check` for the pictures that are not broken, by name, and "name: reason" of the others."""
    with ThreadPoolExecutor() as threads:
        results = list(threads.map(partial(attempt, check), names))
    pairs = list(zip(names, results, strict=True))
    sound = {name: result for name, result in pairs if not isinstance(result, BrokenPicture)}
    return sound, tuple(f"{name}: {result}" for name, result in pairs if isinstance(result, BrokenPicture))


def attempt(check: Callable[[str], T], name: str) -> T | BrokenPicture:
    """Return `check(name)`, or the exception of a broken file."""
    try:
        return check(name)
    except BrokenPicture as error:
        return error


def report_unreadable(path: Path, unreadable: tuple[str, ...], n: int) -> None:
    """Warn of unreadable files by number and first names; raise UserError if all n are unreadable."""
    if not unreadable:
        return
    shown = "; ".join(unreadable[:5]) + ("; …" if len(unreadable) > 5 else "")
    message = f"{path}: {len(unreadable)} of {n} image files cannot be read: {shown}"
    if len(unreadable) == n:
        raise UserError(message)
    warnings.warn(message, stacklevel=2)


def not_read(others: Sequence[str], missed: Sequence[str]) -> list[str]:
    """Sentences on files that are no pictures, by suffix, with the package that would read them."""
    counts = Counter(suffix_of(name) for name in others)
    parts = []
    for suffix, count in counts.most_common():
        package = package_for(suffix)
        way = f" (`pip install {package}` reads them)" if package else ""
        parts.append(f"{count:,} {suffix or 'without suffix'}{way}")
    return [
        *([f"not read, because they are no pictures: {', '.join(parts)}"] if parts else []),
        *([f"not read: {', '.join(missed[:3])}{', …' if missed[3:] else ''}"] if missed else []),
    ]
