"""Annotations of pictures: rows of tables with labels and values, and class masks."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from flows.core.checks import counted
from flows.data.base import Attribute, SplitName
from flows.data.columns import (
    Column,
    ColumnKind,
    attributes_of,
    check_kinds,
    column_notes,
    label_among,
    read_column,
)
from flows.data.formats import is_picture
from flows.data.layout import SPLIT_FOLDERS
from flows.data.masks import MaskFiles, pair_masks, pair_masks_in
from flows.data.tables import Rows, find_rows, rows_of_file


@dataclass(frozen=True)
class Annotations:
    """Pictures of a folder, with what lies beside them.

    Attributes:
        pictures: Names of the n pictures, masks not among them.
        others: Names of the files that are neither pictures nor used.
        rows: Rows of the tables; None without a table.
        columns: Columns of the tables, with values for the n pictures.
        masks: Masks; None without.
        unused: Sentences on tables that are not used.
    """

    pictures: tuple[str, ...]
    others: tuple[str, ...]
    rows: Rows | None
    columns: tuple[Column, ...]
    masks: MaskFiles | None
    unused: tuple[str, ...] = ()

    @property
    def attributes(self) -> tuple[Attribute, ...]:
        """Attributes of all columns."""
        return attributes_of(self.columns)

    @property
    def label(self) -> Column | None:
        """Column with one class per picture that is called label, class or category; None without."""
        return label_among(self.columns)

    @property
    def splits(self) -> dict[str, SplitName] | None:
        """Split of each picture by a column of the table; None if there is no such column."""
        column = None if self.rows is None else self.rows.split_column(SPLIT_FOLDERS)
        if self.rows is None or column is None:
            return None
        cells = zip(self.pictures, self.rows.cells(column, self.pictures), strict=True)
        return {
            name: SPLIT_FOLDERS[key]
            for name, cell in cells
            if (key := str(cell).strip().lower()) in SPLIT_FOLDERS
        }

    def values(self, names: Sequence[str]) -> Tensor | None:
        """Values of the attributes for pictures, float32 (n, number of attributes); None without a table."""
        if not self.attributes:
            return None
        row_of = {name: row for row, name in enumerate(self.pictures)}
        rows = torch.tensor([row_of[name] for name in names])
        return torch.cat([column.values for column in self.columns], 1)[rows].float()

    def notes(self) -> list[str]:
        """Sentences on tables and masks: what was taken for what, what is missing, what is left out."""
        return [*self.unused, *self._table_notes(), *self._mask_notes()]

    def _table_notes(self) -> list[str]:
        if self.rows is None:
            return []
        of = f"{len(self.rows.of):,} of {len(self.pictures):,} pictures have a row"
        notes = column_notes(self.columns, f"{' and '.join(self.rows.tables)}: {of}")
        if self.rows.missing:
            notes.append(counted(self.rows.missing, "pictures that the table names and that are not here"))
        if self.rows.without:
            notes.append(counted(self.rows.without, "pictures without a row, whose values are missing"))
        return notes

    def _mask_notes(self) -> list[str]:
        if self.masks is None:
            return []
        without = [name for name in self.pictures if name not in self.masks.of]
        notes = [f"{len(self.masks.of):,} of {len(self.pictures):,} pictures have a mask"]
        if without:
            notes.append(counted(without, "pictures without a mask, whose pixels have no label"))
        if self.masks.alone:
            notes.append(counted(self.masks.alone, "masks without a picture"))
        return notes


def find_annotations(
    path: Path,
    names: Sequence[str],
    table: Path | None,
    masks: Path | None,
    columns: Mapping[str, ColumnKind],
) -> Annotations:
    """Find what lies beside the pictures of a folder or archive.

    Args:
        path: Folder or archive.
        names: Relative names of its files.
        table: Table elsewhere; None finds those in the folder.
        masks: Folder or archive of masks elsewhere; None finds those in the folder.
        columns: Kinds of columns that are not to be found out.

    Raises:
        UserError: A table or a mask cannot be used; see `find_rows` and `pair_masks_in`.
    """
    pictures = tuple(name for name in names if is_picture(name))
    others = tuple(name for name in names if not is_picture(name))
    found = pair_masks(path, pictures, others) if masks is None else None
    if found is not None:
        taken = {*found.of.values(), *found.alone}
        pictures = tuple(name for name in pictures if name not in taken)
    if masks is not None and pictures:
        found = pair_masks_in(masks, pictures)
    rows, unused = None, list[str]()
    if pictures:
        rows, unused = (rows_of_file(table, pictures), []) if table else find_rows(path, others, pictures)
    used = set(rows.tables) if rows else set()
    left = tuple(name for name in others if name not in used and not (found and name.endswith("classes.txt")))
    return Annotations(pictures, left, rows, read_columns(rows, pictures, columns), found, tuple(unused))


def read_columns(
    rows: Rows | None, pictures: Sequence[str], kinds: Mapping[str, ColumnKind]
) -> tuple[Column, ...]:
    """Columns of the tables, with values for the pictures.

    Raises:
        UserError: A kind is given for a column that there is not, or is not that of its values.
    """
    known = () if rows is None else rows.columns
    check_kinds(kinds, known)
    if rows is None:
        return ()
    split = rows.split_column(SPLIT_FOLDERS)
    return tuple(
        read_column(name, rows.cells(name, pictures), kinds.get(name)) for name in known if name != split
    )
