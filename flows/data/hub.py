"""Data sets from the Hugging Face hub, or local folders in its layouts, through `datasets`."""

import io
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from torch import Tensor

from flows.core.bounds import Bins, ImageSize
from flows.data.base import Attribute, ImageData, SplitName, comes_sorted, fair_order
from flows.data.columns import (
    Column,
    ColumnKind,
    attributes_of,
    beside_labels,
    check_kinds,
    column_notes,
    folder_attribute,
    label_among,
    values_beside_labels,
)
from flows.data.decode import (
    BrokenPicture,
    LazySplit,
    decoding,
    named,
    opening,
    resize_transform,
    resized,
    sides,
    upright_size,
)
from flows.data.hub_table import HubTable
from flows.data.masks import MaskFiles, MaskPixels, Masks, coding_of, mask_pixels, read_classes, stacked
from flows.errors import DataMissing, UserError, missing_extra

__all__ = ["HubData"]

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

LABEL = "label"
"""Default name of the column with labels, which a data set need not have."""


class HubData(ImageData):
    """Images of a data set on the Hugging Face hub.

    Examples are uoft-cs/cifar10, flwrlabs/celeba and huggan/flowers-102-categories. `repo` may also be a
    local folder of parquet files or pictures, which needs no network. Images are decoded on access.

    Splits: those of the data set, by name; if there is one alone, those of a column called split. A missing
    validation or test split is 5 % of the training split (fixed permutation), which then excludes it.

    Labels: the column `label_column`. A data set without a column of the default name has those of its
    subfolders, if it is a local folder of pictures, or of a column called class or category; else −1.

    Attributes: the other columns with numbers, truth values, texts or classes, or with lists of them; see
    `read_column` for their kinds, which are found over all splits together. Labels that are no plain values
    of a column, but have names of their own, are one more attribute beside others.

    Args:
        repo: Name on the hub, or path of a local folder.
        subset: Configuration, for data sets that have several.
        image_column: Column with the pictures.
        label_column: Column with one class per picture, None for no labels.
        size: Side of the square images in pixels, or height and width; other pictures are centre-cropped and
            resized.
        channels: Number of channels, 3 for RGB, 1 for grey.
        train: Name of the training split in the data set.
        validation: Name of the validation split in the data set.
        test: Name of the test split in the data set.
        bins: Number of grey levels that a model distinguishes; 32 for 5-bit images.
        columns: Kinds of columns whose values are taken for something else: `{stars: category}`.
        mask_column: Column with class masks, pictures with one value per pixel; None for no masks.
        mask_names: Names of the values of the masks from 0 on, or each with its value before it, `255 leaf`;
            None calls them by their values.

    Raises:
        DataMissing: `datasets` is not installed, or finds no data set of that name.
        UserError: The data set lacks a column or the training split, or a column or mask is not usable.
    """

    name = "hub"
    path_arguments = ("repo",)

    def __init__(
        self,
        repo: str,
        subset: str | None = None,
        image_column: str = "image",
        label_column: str | None = LABEL,
        size: ImageSize = 32,
        channels: Literal[1, 3] = 3,
        train: str = "train",
        validation: str = "validation",
        test: str = "test",
        bins: Bins = 256,
        columns: dict[str, ColumnKind] | None = None,
        mask_column: str | None = None,
        mask_names: list[str] | None = None,
    ):
        if mask_names is not None and mask_column is None:
            raise UserError("mask_names: expected null without mask_column, which names the column of masks")
        self.repo = repo
        self.subset = subset
        self.image_column = image_column
        self.label_column = label_column
        self.size = size
        self.channels = channels
        self.split_names: dict[SplitName, str] = {
            "train": train, "validation": validation, "test": test,
        }  # fmt: skip
        self.bins = bins
        self.columns = columns or {}
        self.mask_column, self.mask_names = mask_column, mask_names
        self.image_shape = (channels, *sides(size))
        self.transform = f"{repo}, {resize_transform(size, channels)}"

    @cached_property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        """Names of the labels, if the data set has any."""
        own, column = self._own_classes, self._label
        return own.names if own else column.classes if column else ()

    @cached_property
    def attributes(self) -> tuple[Attribute, ...]:  # type: ignore[override]
        """Attributes of the columns, and labels with names of their own before them."""
        own, classes = attributes_of(self._columns), self._own_classes
        return beside_labels(classes.column, classes.names, own) if classes else own

    @cached_property
    def mask_classes(self) -> tuple[str, ...]:  # type: ignore[override]
        """Classes of the masks; empty without masks."""
        return self._masks.classes if self._masks else ()

    @property
    def training_images(self) -> int:  # type: ignore[override]
        """Number of training images."""
        return len(self._table.rows_of("train"))

    def notes(self) -> list[str]:
        """Columns that were taken for something, and those that are left out; masks that are missing."""
        notes = []
        if self._columns:
            notes += column_notes(self._columns, f"{self.repo}: {len(self._table.rows):,} pictures")
        if self._table.given is not self._table.own:
            notes.append(f"splits are those of the column {self._table.split_column}")
        if self._masks is not None:
            notes.append(f"{self._masks.found:,} of {len(self._table.rows):,} pictures have a mask")
        return notes

    def split(self, name: SplitName) -> LazySplit:
        rows = self._table.rows_of(name)
        labels = self._labels[rows]
        if comes_sorted(labels):
            order = fair_order(range(len(rows)))
            rows, labels = rows[order], labels[order]
        pictures = self._table.rows.select_columns([self.image_column])
        values = self._values[rows] if self.attributes else None
        split = LazySplit(partial(self._decode, pictures, rows), labels, values, partial(self._name, name))
        split.masks = self._masks.values[rows] if self._masks else None
        return split

    def _name(self, split: SplitName, index: int) -> str:
        return f"{self.repo}: image {index} of the {split} split"

    def _decode(self, pictures: "Dataset", rows: Tensor, index: int) -> Tensor:
        with decoding():
            picture = pictures[int(rows[index])][self.image_column]
            picture.load()
        return resized(picture, self.size, self.channels)

    # Columns --------------------------------------------------------------------------------------

    @cached_property
    def _columns(self) -> tuple[Column, ...]:
        """Columns of all pictures, but those of pictures, masks, splits, and of labels with names."""
        table, label = self._table, self.label_column
        named_label = label if table.has_names(label) else None
        others = (self.image_column, self.mask_column, named_label, table.split_column)
        names = [name for name in table.features if name not in others]
        check_kinds(self.columns, names)
        return tuple(table.column(n, self.columns.get(n), n == label != LABEL) for n in names)

    @cached_property
    def _own_classes(self) -> "OwnClasses | None":
        """Labels whose classes have names of their own: by the column's type, or by subfolders."""
        table, label = self._table, self.label_column
        if label is not None and table.has_names(label):
            labels = torch.tensor([-1 if cell is None else cell for cell in table.cells(label)])
            return OwnClasses(label, tuple(table.features[label].names), labels)
        layout = table.layout(Path(self.repo), self.image_column) if label == LABEL else None
        if layout is None or not layout.class_names:
            return None
        labels = torch.tensor([layout.label(name) for name in layout.names])
        return OwnClasses(folder_attribute(attributes_of(self._columns)), layout.class_names, labels)

    @cached_property
    def _label(self) -> Column | None:
        """Column of values whose classes are the labels; None without."""
        if self.label_column is None or self._own_classes is not None:
            return None
        if self.label_column == LABEL:
            return label_among(self._columns)
        column = next(each for each in self._columns if each.name == self.label_column)
        if not column.classes:
            raise UserError(
                f"data.label_column: expected class labels in {self.label_column}; set it to null for none"
            )
        return column

    @cached_property
    def _labels(self) -> Tensor:
        """Labels of all pictures, int64 (n,)."""
        if self._own_classes is not None:
            return self._own_classes.labels
        return torch.full((len(self._table.rows),), -1) if self._label is None else self._label.labels()

    @cached_property
    def _values(self) -> Tensor:
        """Attributes of all pictures, float32 (n, number of attributes)."""
        own = torch.cat([column.values for column in self._columns], 1).float()
        return values_beside_labels(self._own_classes.labels, own) if self._own_classes else own

    # Masks ----------------------------------------------------------------------------------------

    @cached_property
    def _masks(self) -> Masks | None:
        """Masks of all pictures; None without masks."""
        if self.mask_column is None:
            return None
        n = len(self._table.rows)
        with ThreadPoolExecutor() as threads:
            read = dict(enumerate(threads.map(self._mask, range(n))))
        masks = {f"row {row + 1}": mask for row, mask in read.items() if mask is not None}
        shapes = {name: self._shape(int(name.split()[1]) - 1) or mask.shape for name, mask in masks.items()}
        classes = read_classes("data.mask_names", "\n".join(self.mask_names)) if self.mask_names else {}
        of = {name: f"{self.mask_column} of {name}" for name in masks}
        coding = coding_of(MaskFiles(Path(self.repo), of, classes, (), "data.mask_names"), masks, shapes)
        return stacked(coding, n, {row: mask for row, mask in read.items() if mask is not None}, self.size)

    def _mask(self, row: int) -> MaskPixels | None:
        """Mask of a picture; None if it has none."""
        name = f"{self.repo}: {self.mask_column} of row {row + 1}"
        with named(name):
            with decoding():
                picture = self._of_masks[row][self.mask_column]
            return None if picture is None else mask_pixels(picture, name, self.size)

    def _shape(self, row: int) -> tuple[int, int] | None:
        """(width, height) of a picture, upright, by its header; None if it is broken."""
        cell = self._headers[row][self.image_column]
        try:
            with opening(io.BytesIO(cell["bytes"]) if cell["bytes"] else cell["path"]) as opened:
                return upright_size(opened)
        except BrokenPicture:  # it is left out when it is decoded
            return None

    @cached_property
    def _of_masks(self) -> "Dataset":
        """Rows with their masks alone."""
        return self._table.rows.select_columns([self.mask_column])

    @cached_property
    def _headers(self) -> "Dataset":
        """Rows with their pictures alone, which are not decoded."""
        from datasets import Image

        column = self.image_column
        return self._table.rows.select_columns([column]).cast_column(column, Image(decode=False))

    # Rows -----------------------------------------------------------------------------------------

    @cached_property
    def _table(self) -> HubTable:
        try:
            from datasets import load_dataset

            loaded = load_dataset(self.repo, self.subset)
        except ImportError as error:
            raise missing_extra("hub data sets need the package `datasets`", "data", error) from error
        except (OSError, RuntimeError, ValueError) as error:
            raise DataMissing(f"data.repo: {self.repo} cannot be loaded: {error}") from error
        self._check(loaded)
        return HubTable(loaded, self.split_names)

    def _check(self, loaded: "DatasetDict") -> None:
        """Raise UserError if a split or column named in the config is missing."""
        train = self.split_names["train"]
        if train not in loaded:
            raise UserError(f"data.train: {self.repo} has the splits {', '.join(loaded)}, not {train}")
        columns = loaded[train].column_names
        label = None if self.label_column == LABEL else self.label_column
        for column in filter(None, (self.image_column, label, self.mask_column)):
            if column not in columns:
                raise UserError(
                    f"{self.repo} has the columns {', '.join(columns)}, not {column}; set "
                    "data.image_column, data.label_column (null for no labels) and data.mask_column"
                )
        if self.mask_column and type(loaded[train].features[self.mask_column]).__name__ != "Image":
            raise UserError(f"data.mask_column: expected a column of pictures, got {self.mask_column}")


class OwnClasses(NamedTuple):
    """Classes that are no plain values of a column.

    Attributes:
        column: Name of the class as an attribute.
        names: Names of the classes.
        labels: int64 (n,), index of the class of each picture, −1 for none.
    """

    column: str
    names: tuple[str, ...]
    labels: Tensor
