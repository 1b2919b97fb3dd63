"""Tables beside pictures: metadata.csv and .jsonl, other lists of files, CelebA's lists; rows by picture."""

import csv
import io
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from flows.core.checks import counted
from flows.data.archive import plain_name, read_text_of
from flows.data.columns import Cell, split_column
from flows.errors import UserError

NAMES = ("metadata.csv", "metadata.tsv", "metadata.jsonl")
"""Names of tables by the convention of Hugging Face's image folders; they may stand in any folder."""
SUFFIXES = (".csv", ".tsv", ".jsonl")
"""Suffixes of other tables, which are taken if they name pictures."""
KEYS = (
    "file_name", "filename", "file", "image", "image_name", "image_id", "image_path", "img", "path", "name",
    "picture", "photo", "id",
)  # fmt: skip
"""Names, in lower case, of the column that names the picture; the first one that is there."""
CELEBA_ATTRIBUTES, CELEBA_SPLITS = (
    re.compile(r"list_attr\w*\.txt"),
    re.compile(r"list_eval_partition\w*\.txt"),
)
"""CelebA's lists of attributes and splits, without commas."""
MOST_BYTES = 2**28
"""Largest size of a table, in bytes."""


@dataclass(frozen=True)
class Table:
    """Table beside pictures.

    Attributes:
        name: Relative name of the file.
        keys: Names of the pictures, one for each row.
        columns: Name of a column to the cells of all rows.
    """

    name: str
    keys: Sequence[str]
    columns: Mapping[str, Sequence[Cell]]

    @property
    def folder(self) -> PurePosixPath:
        """Relative name of the folder, to which the names of pictures are relative."""
        return PurePosixPath(self.name).parent


@dataclass(frozen=True)
class Rows:
    """Rows of tables by picture.

    Attributes:
        of: Name of a picture to its row: name of a column to a cell.
        columns: Names of the columns, in their order.
        tables: Names of the tables.
        missing: Names in the tables of which there is no picture.
        without: Names of the pictures without a row.
    """

    of: Mapping[str, Mapping[str, Cell]]
    columns: tuple[str, ...]
    tables: tuple[str, ...]
    missing: tuple[str, ...] = ()
    without: tuple[str, ...] = ()

    def cells(self, column: str, pictures: Iterable[str]) -> list[Cell]:
        """Cells of a column for pictures; None where a picture has no row."""
        return [self.of.get(name, {}).get(column) for name in pictures]

    def split_column(self, names: Mapping[str, object]) -> str | None:
        """Name of the column with splits, all of whose values are among `names`; None if there is none."""
        return split_column({name: self.cells(name, self.of) for name in self.columns}, names)


def is_table(name: str) -> bool:
    """Whether a relative name may be that of a table."""
    path = PurePosixPath(name)
    listed = CELEBA_ATTRIBUTES.fullmatch(path.name) or CELEBA_SPLITS.fullmatch(path.name)
    return path.name.lower() in NAMES or path.suffix.lower() in SUFFIXES or listed is not None


def find_rows(path: Path, others: Sequence[str], pictures: Sequence[str]) -> tuple[Rows | None, list[str]]:
    """Read the tables in a folder or archive, and find the row of each picture.

    Args:
        path: Folder or archive.
        others: Relative names of its files that are no pictures.
        pictures: Relative names of its pictures.

    Returns:
        Rows, None if there is no table, and sentences on tables that are not used.

    Raises:
        UserError: A table by the convention cannot be read or names no picture, or one picture has two rows.
    """
    index, tables, notes = Index(pictures), [], []
    for name in filter(is_table, others):
        by_convention = PurePosixPath(name).name.lower() in NAMES
        try:
            table = read_table(name, read_text_of(path, name), index)
        except UserError as error:
            if by_convention:
                raise
            notes.append(f"{name} is not used: {error}")
            continue
        tables.append(table)
    return (joined(path, tables, index) if tables else None), notes


def rows_of_file(file: Path, pictures: Sequence[str]) -> Rows:
    """Read one table, which may stand anywhere; see `find_rows`."""
    index = Index(pictures)
    table = read_table(file.name, read_text_of(file.parent, file.name), index)
    return joined(file, [table], index)


def joined(path: Path, tables: Sequence[Table], index: "Index") -> Rows:
    """Rows of tables by picture.

    Raises:
        UserError: One table has two rows of one picture, or two tables have one column of a picture.
    """
    found: dict[str, dict[str, Cell]] = {}
    missing: list[str] = []
    for table in tables:
        places = [index.find(key, table.folder) for key in table.keys]
        twice = [name for name, count in Counter(filter(None, places)).items() if count > 1]
        if twice:
            raise UserError(
                f"{path}: {table.name}: {counted(twice, 'pictures with two rows')}; keep one of each"
            )
        missing += [key for key, place in zip(table.keys, places, strict=True) if place is None]
        for row, place in enumerate(places):
            cells = {} if place is None else found.setdefault(place, {})
            both = [name for name in table.columns if name in cells]
            if both:
                raise UserError(f"{path}: {table.name} and another table both have {both[0]} of {place}")
            cells.update({name: values[row] for name, values in table.columns.items()})
    columns = tuple(dict.fromkeys(name for table in tables for name in table.columns))
    without = tuple(name for name in index.pictures if name not in found)
    return Rows(found, columns, tuple(table.name for table in tables), tuple(missing), without)


# Files --------------------------------------------------------------------------------------------


def read_table(name: str, text: str, index: "Index") -> Table:
    """Read a table from the text of its file.

    Args:
        name: Relative name of the file.
        text: Content of the file.
        index: Pictures, by which the column with their names is found.

    Raises:
        UserError: The text is no table, or none of its columns names pictures.
    """
    if len(text) > MOST_BYTES:
        raise UserError(f"{name}: {len(text):,} characters, expected at most {MOST_BYTES:,}")
    base = PurePosixPath(name).name
    if CELEBA_ATTRIBUTES.fullmatch(base) or CELEBA_SPLITS.fullmatch(base):
        columns = read_celeba(name, text)
    else:
        columns = read_lines(name, text) if base.lower().endswith(".jsonl") else read_separated(name, text)
    lengths = {len(cells) for cells in columns.values()}
    if not lengths or lengths == {0}:
        raise UserError(f"{name}: expected a heading and rows, got no row")
    key = key_column(name, columns, index)
    keys = ["" if cell is None else str(cell) for cell in columns[key]]
    return Table(name, keys, {each: cells for each, cells in columns.items() if each != key})


def read_separated(name: str, text: str) -> dict[str, list[Cell]]:
    """Columns of a table with separators: commas, semicolons or tabs.

    Raises:
        UserError: A heading occurs twice, or a row has another number of cells.
    """
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    rows = [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator) if any(row)]
    if not rows:
        return {}
    heading = [cell.strip() for cell in rows[0]]
    twice = [each for each, count in Counter(heading).items() if count > 1]
    if twice:
        raise UserError(f"{name}: two columns are called {twice[0]!r}")
    wrong = [str(i + 1) for i, row in enumerate(rows) if len(row) != len(heading)]
    if wrong:
        raise UserError(
            f"{name}: {counted(wrong, f'rows that have not the {len(heading)} cells of the heading')}"
        )
    columns = {each: [row[i] for row in rows[1:]] for i, each in enumerate(heading)}
    return {each: decimal_points(cells) if separator == ";" else cells for each, cells in columns.items()}


def decimal_points(cells: list[Cell]) -> list[Cell]:
    """Numbers with decimal commas, as tables with semicolons have them, with points; others as they are."""
    number = re.compile(r"\s*-?\d+(,\d+)?\s*")
    written = [cell for cell in cells if cell.strip()]
    if all(number.fullmatch(cell) for cell in written):
        return [cell.replace(",", ".") for cell in cells]
    return cells


def read_lines(name: str, text: str) -> dict[str, list[Cell]]:
    """Columns of a file with one JSON object per line; a name that a line lacks has no value there."""
    rows: list[dict[str, Cell]] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{name}: line {number} is no JSON ({error})") from error
        if not isinstance(row, dict):
            raise UserError(f"{name}: line {number}: expected names and values in braces, got {line[:40]!r}")
        rows.append(row)
    names = dict.fromkeys(key for row in rows for key in row)
    return {key: [row.get(key) for row in rows] for key in names}


def read_celeba(name: str, text: str) -> dict[str, list[Cell]]:
    """Columns of CelebA's lists: attributes with their number and names above, or splits as 0, 1, 2."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    if CELEBA_SPLITS.fullmatch(PurePosixPath(name).name):
        splits = {"0": "train", "1": "validation", "2": "test"}
        return {
            "file_name": [line[0] for line in lines],
            "split": [splits.get(line[-1], line[-1]) for line in lines],
        }
    counted_first = bool(lines) and len(lines[0]) == 1 and lines[0][0].isdecimal()
    heading, *rows = lines[counted_first:] or [[]]
    wrong = [row[0] for row in rows if len(row) != len(heading) + 1]
    if wrong or not rows:
        raise UserError(
            f"{name}: {counted(wrong, f'rows that have not the {len(heading)} values of the heading')}"
        )
    columns: dict[str, list[Cell]] = {"file_name": [row[0] for row in rows]}
    return columns | {each: [row[i + 1] for row in rows] for i, each in enumerate(heading)}


# Rows and pictures --------------------------------------------------------------------------------


def key_column(name: str, columns: Mapping[str, Sequence[Cell]], index: "Index") -> str:
    """Name of the column that names pictures.

    Raises:
        UserError: No column names a picture.
    """
    lower = {each.lower(): each for each in reversed(list(columns))}
    candidates = [lower[key] for key in KEYS if key in lower]
    candidates += [each for each in columns if each not in candidates]
    for each in candidates:
        texts = [str(cell) for cell in columns[each] if isinstance(cell, str | int)]
        if any(index.find(text, PurePosixPath(name).parent) for text in texts):
            return each
    shown = next((str(cell) for cell in columns[candidates[0]]), "")
    raise UserError(
        f"{name}: no column names a picture; expected file_name with names such as {index.pictures[0]}, "
        f"got {candidates[0]} with {shown!r}"
    )


class Index:
    """Pictures by the names that tables have for them: the path, the name alone, the name without suffix.

    Args:
        pictures: Relative names of the pictures.
    """

    def __init__(self, pictures: Sequence[str]):
        self.pictures = pictures
        plain = {plain_name(name): name for name in pictures}
        self.of_path = plain
        self.of_name = unique((PurePosixPath(key).name, name) for key, name in plain.items())
        self.of_stem = unique((PurePosixPath(key).stem, name) for key, name in plain.items())
        self.of_path_stem = unique((key.rpartition(".")[0], name) for key, name in plain.items())

    def find(self, text: str, folder: PurePosixPath) -> str | None:
        """Name of the picture that a table in `folder` calls `text`; None if none or several are meant."""
        key = plain_name(text)
        if not key:
            return None
        below = str(folder / key)
        for paths in (self.of_path, self.of_path_stem):
            if found := paths.get(below) or paths.get(key):
                return found
        if "/" in key:
            return None
        return self.of_name.get(key) or self.of_stem.get(key)


def unique(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Mapping of the keys that occur once."""
    listed = list(pairs)
    counts = Counter(key for key, _ in listed)
    return {key: name for key, name in listed if counts[key] == 1}
