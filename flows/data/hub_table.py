"""Rows of a data set of the package `datasets`, of all splits together, as cells of a table."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from flows.data.base import SPLITS, SplitName, hold_out
from flows.data.columns import (
    SPLIT_COLUMNS,
    Cell,
    Column,
    ColumnKind,
    clean,
    left_out,
    number_of,
    read_column,
    split_column,
)
from flows.data.layout import SPLIT_FOLDERS, Layout
from flows.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HELD_OUT = 0.05
"""Share of the training split that a split takes which the data set has not."""
CELL_TYPES = ("int", "uint", "float", "bool", "string", "large_string")
"""Beginnings of the types of values that are cells of a table."""


class HubTable:
    """Rows of the splits that are used, one after another.

    Args:
        loaded: Data set by the names of its splits.
        names: Names of the splits that are used; those that the data set has not are held out.

    Attributes:
        rows: All rows.
        features: Name of a column to its type.
    """

    def __init__(self, loaded: "DatasetDict", names: Mapping[SplitName, str]):
        from datasets import concatenate_datasets

        present = list(dict.fromkeys(name for name in names.values() if name in loaded))
        parts = [loaded[name] for name in present]
        self.rows: Dataset = concatenate_datasets(parts) if len(parts) > 1 else parts[0]
        self.features: Mapping[str, Any] = self.rows.features
        numbers = torch.arange(len(self.rows)).split([len(part) for part in parts])
        places = dict(zip(present, numbers, strict=True))
        self.own: dict[SplitName, Tensor] = {
            split: places[name] for split, name in names.items() if name in places
        }

    def cells(self, name: str) -> list[Cell]:
        """Cells of a column, n of them; classes by their numbers."""
        return list(self._stored(name).to_pylist())

    def column(self, name: str, kind: ColumnKind | None, is_label: bool) -> Column:
        """Read a column; see `read_column`.

        Args:
            name: Name of the column.
            kind: Kind of the column; None finds it out.
            is_label: Whether it was said to be the label, so that whole numbers are those of classes.
        """
        feature = self.features[name]
        if not is_cell(feature):
            return left_out(name, self.rows, reason(feature))
        cells = named_cells(feature, self.cells(name))
        if is_label and not all(may_be_class(cell) for cell in map(clean, cells)):
            return left_out(name, cells, "its values are no classes")
        return read_column(name, cells, kind or ("category" if is_label else None))

    def has_names(self, name: str | None) -> bool:
        """Whether the type of a column has the names of classes."""
        return name is not None and hasattr(self.features.get(name), "names")

    @cached_property
    def split_column(self) -> str | None:
        """Name of the column that has the split of each row; None if there is none."""
        cells = {
            name: named_cells(feature, self.cells(name))
            for name, feature in self.features.items()
            if name.lower() in SPLIT_COLUMNS and is_cell(feature)
        }
        return split_column(cells, SPLIT_FOLDERS)

    @cached_property
    def given(self) -> Mapping[SplitName, Tensor]:
        """Rows of the splits that the data set has, or that its column of splits names if it has one alone.

        Raises:
            UserError: The column names no training rows.
        """
        if self.split_column is None or len(self.own) > 1:
            return self.own
        cells = named_cells(self.features[self.split_column], self.cells(self.split_column))
        of = [SPLIT_FOLDERS.get(str(cell).strip().lower()) for cell in cells]
        # As in a folder: rows without a split are trained on only if no row is named for it.
        of = of if "train" in of else [split or "train" for split in of]
        found = {
            split: torch.tensor([row for row, each in enumerate(of) if each == split])
            for split in SPLITS
            if split in of
        }
        if "train" not in found:
            raise UserError(f"column {self.split_column}: no row is in the training split")
        return found

    def rows_of(self, name: SplitName) -> Tensor:
        """Rows of a split, int64 (number of images,)."""
        if name in self.given and name != "train":
            return self.given[name]
        kept = self.given["train"]
        for seed, other in enumerate(each for each in ("validation", "test") if each not in self.given):
            left, held_out = hold_out(len(kept), HELD_OUT, seed)
            if other == name:
                return kept[held_out]
            kept = kept[left]
        return kept

    def layout(self, folder: Path, image_column: str) -> Layout | None:
        """Layout of a local folder of pictures; None if the pictures are not files in it."""
        import pyarrow.compute as pc

        if not folder.is_dir():
            return None
        paths = pc.struct_field(self._stored(image_column), "path").to_pylist()
        top = folder.absolute()
        if not all(path is not None and PurePath(path).is_relative_to(top) for path in paths):
            return None
        return Layout(tuple(PurePath(path).relative_to(top).as_posix() for path in paths), 0, 0)

    def _stored(self, name: str) -> Any:
        """Column as it is stored, in chunks, without decoding of pictures."""
        return self.rows.select_columns([name]).with_format("arrow")[:].column(0)


# Types --------------------------------------------------------------------------------------------


def inner(feature: Any) -> Any:
    """Type of the values of a list; None for types that are no lists."""
    return feature[0] if isinstance(feature, list) else getattr(feature, "feature", None)


def is_cell(feature: Any) -> bool:
    """Whether values of a type are cells of a table: numbers, texts, classes, or lists of them."""
    each = feature if inner(feature) is None else inner(feature)
    if isinstance(each, Mapping) or inner(each) is not None:
        return False
    return hasattr(each, "names") or type(each).__name__ == "Value" and each.dtype.startswith(CELL_TYPES)


def reason(feature: Any) -> str:
    """Reason why a column of a type is left out."""
    if isinstance(feature, Mapping) or isinstance(inner(feature), Mapping):
        return "its values have parts of their own"
    kind = type(feature).__name__
    return f"its values are of type {feature.dtype if kind == 'Value' else kind}"


def named_cells(feature: Any, cells: Sequence[Cell]) -> list[Cell]:
    """Cells with the names of classes for their numbers; −1 is a missing value."""
    each = feature if inner(feature) is None else inner(feature)
    if not hasattr(each, "names"):
        return list(cells)

    def name(cell: Cell) -> Cell:
        if isinstance(cell, list):
            return [name(number) for number in cell]
        return None if cell is None or cell < 0 else each.names[cell]

    return [name(cell) for cell in cells]


def may_be_class(cell: Cell) -> bool:
    """Whether a cell is missing, a text or a whole number."""
    if isinstance(cell, list):
        return False
    number = number_of(cell)
    return isinstance(cell, str) or number is None or number.is_integer()
