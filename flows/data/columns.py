"""Columns of a table as attributes: their kind from their values, or from the person who knows."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from flows.core.checks import counted, did_you_mean
from flows.data.base import Attribute
from flows.errors import UserError

ColumnKind = Literal["binary", "category", "real", "circular", "several", "ignore"]
"""Kind of a column; `several` has several classes per picture, `ignore` leaves the column out."""
UsedKind = Literal["binary", "category", "real", "circular", "several"]
Cell = Any
"""Value of a cell: text, number, truth value, list of texts, or None."""

MISSING = frozenset(("", "na", "n/a", "nan", "null", "none", "-", "?"))
"""Texts of cells without a value, in lower case."""
TRUTH = {"yes": 1.0, "no": 0.0, "true": 1.0, "false": 0.0, "y": 1.0, "n": 0.0, "t": 1.0, "f": 0.0}
"""Texts of truth values, in lower case."""
LABELS = ("label", "class", "category")
"""Names of columns whose numbers are numbers of classes."""
SPLIT_COLUMNS = ("split", "partition", "subset", "set")
"""Names of the column that has the split of each picture."""
SEPARATORS = ("|", ";")
"""Signs between the classes of a cell that has several."""
MOST_CLASSES = 200
"""Largest number of classes of a column; texts with more values describe pictures, or name them."""
ID = re.compile(r"(^|[_\s])(id|idx|index|nr|no|number|key|uuid)$|^unnamed|^$", re.IGNORECASE)
"""Names of columns that number the rows."""


@dataclass(frozen=True)
class Column:
    """Column of a table.

    Attributes:
        name: Name of the column.
        attributes: Attributes of the column: one, for several classes one for each, none if it is left out.
        values: (n, number of attributes) fp64, NaN where a value is missing.
        left_out: Reason why the column is left out; empty if it is not.
    """

    name: str
    attributes: tuple[Attribute, ...]
    values: Tensor
    left_out: str = ""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of a column with one class per picture, or yes and no; else empty."""
        first = self.attributes[0] if len(self.attributes) == 1 else None
        if first is None or first.name != self.name:  # none, or one of several
            return ()
        return ("no", "yes") if first.kind == "binary" else first.classes

    def labels(self) -> Tensor:
        """Index of the class, int64 (n,), of a column with `classes`; −1 where it is missing."""
        return self.values[:, 0].nan_to_num(nan=-1).long()


def attributes_of(columns: Sequence[Column]) -> tuple[Attribute, ...]:
    """Attributes of all columns."""
    return tuple(each for column in columns for each in column.attributes)


def beside_labels(name: str, classes: tuple[str, ...], own: tuple[Attribute, ...]) -> tuple[Attribute, ...]:
    """Attributes of columns, with a class that is no column of the table before them.

    Args:
        name: Name of the attribute of the class.
        classes: Names of the classes; empty for none.
        own: Attributes of the columns; without any, the label alone has the class.
    """
    return (Attribute(name, "category", classes=classes), *own) if own and classes else own


def folder_attribute(own: Sequence[Attribute]) -> str:
    """Name of the class by subfolders beside columns: class, unless a column is called that."""
    return "folder" if any(each.name == "class" for each in own) else "class"


def values_beside_labels(labels: Tensor, own: Tensor) -> Tensor:
    """Values of the attributes of `beside_labels`: labels, int64 (n,), −1 for none, before (n, columns)."""
    return torch.cat([labels.float().where(labels >= 0, torch.nan)[:, None], own], 1)


def label_among(columns: Sequence[Column]) -> Column | None:
    """Column with one class per picture that is called label, class or category; None without."""
    named = {column.name.lower(): column for column in reversed(columns)}
    return next((named[name] for name in LABELS if name in named and named[name].classes), None)


def split_column(columns: Mapping[str, Iterable[Cell]], names: Mapping[str, object]) -> str | None:
    """Name of the column with splits, all of whose values are among `names`; None if there is none."""
    for column, cells in columns.items():
        if column.lower() in SPLIT_COLUMNS:
            values = {str(cell).strip().lower() for cell in cells if cell is not None} - {""}
            if values and values <= names.keys():
                return column
    return None


def check_kinds(kinds: Mapping[str, ColumnKind], known: Sequence[str]) -> None:
    """Raise UserError if a kind is given for a column that is not known."""
    unknown = [name for name in kinds if name not in known]
    if unknown:
        hint = did_you_mean(unknown[0], known)
        raise UserError(
            f"data.columns: there is no column {unknown[0]!r}; expected some of {', '.join(known) or 'none'}."
            f"{hint}"
        )


def column_notes(columns: Sequence[Column], source: str) -> list[str]:
    """Sentences on the columns of a table that are used, with their kinds, and on those that are left out."""
    used = [described(column) for column in columns if column.attributes]
    left = [f"{column.name} ({column.left_out})" for column in columns if column.left_out]
    notes = [f"{source}; {', '.join(used) or 'no column is used'}"]
    return [*notes, f"columns left out: {', '.join(left)}"] if left else notes


def described(column: Column) -> str:
    """Column with its kind and values: `age (real, 18 … 80)`."""
    first = column.attributes[0]
    if len(column.attributes) > 1:
        return f"{column.name} ({len(column.attributes)} classes, several per picture)"
    if first.kind == "category":
        listed = ", ".join(first.classes[:4]) + (", …" if len(first.classes) > 4 else "")
        return f"{column.name} ({len(first.classes)} classes: {listed})"
    extent = f", {first.low:g} … {first.high:g}" if first.kind == "real" else ""
    return f"{column.name} ({first.kind}{extent})"


def read_column(name: str, cells: Sequence[Cell], kind: ColumnKind | None = None) -> Column:
    """Read a column: the kind of its values, and the values.

    Two numbers 0 and 1 or −1 and 1, truth values, yes and no are `binary`; other numbers are `real`, except
    in columns called label, class or category; texts that repeat are a `category`; lists, and texts with
    | or ; between words, are `several` classes. Texts of which most occur once, numbers of rows, and columns
    with one value only are left out.

    Args:
        name: Name of the column.
        cells: n values.
        kind: Kind of the column; None finds it out.

    Raises:
        UserError: The values are not of the given kind, or are infinite.
    """
    present = [cell for cell in map(clean, cells) if cell is not None]
    if kind == "ignore":
        return left_out(name, cells, "ignored")
    if not present:
        return left_out(name, cells, "it has no value")
    chosen = kind or kind_of(name, present)
    if isinstance(chosen, tuple):
        return left_out(name, cells, chosen[0])
    if chosen == "several":
        return several(name, cells)
    if chosen == "category":
        return category(name, cells)
    return numeric(name, cells, chosen)


def kind_of(name: str, present: Sequence[Cell]) -> UsedKind | tuple[str]:
    """Kind of a column by its name and its values that are not missing, or the reason to leave it out."""
    if any(isinstance(cell, Mapping) for cell in present):
        return ("its values have parts of their own",)
    if is_several(present):
        return "several"
    distinct = {str(cell) for cell in present}
    if len(distinct) == 1:
        return (f"it has one value only, {next(iter(distinct))}",)
    numbers = [number_of(cell) for cell in present]
    if all(number is not None for number in numbers):
        found = {number for number in numbers if number is not None}
        if found in ({0.0, 1.0}, {-1.0, 1.0}):
            return "binary"
        if name.lower() in LABELS and all(float(number).is_integer() for number in found):
            return "category"
        return ("it numbers the rows",) if counts_rows(name, found, len(present)) else "real"
    if len(distinct) > MOST_CLASSES or 2 * len(distinct) > len(present):
        return (f"{len(distinct):,} different texts in {len(present):,} rows are no classes",)
    return "binary" if {text.lower() for text in distinct} <= TRUTH.keys() else "category"


def is_several(present: Sequence[Cell]) -> bool:
    """Whether the values are lists, or words with a separator between them that repeat."""
    if any(isinstance(cell, list | tuple) for cell in present):
        return True
    texts = [cell for cell in present if isinstance(cell, str)]
    split = [words_of(text) for text in texts]
    words = Counter(word for part in split for word in part)
    return any(len(part) > 1 for part in split) and 2 * len(words) <= sum(words.values())


def counts_rows(name: str, numbers: set[float], n: int) -> bool:
    """Whether numbers are those of the rows: all different, and consecutive or in a column of that name."""
    if len(numbers) < n or not all(number.is_integer() for number in numbers):
        return False
    consecutive = max(numbers) - min(numbers) == n - 1 and min(numbers) in (0, 1)
    return consecutive or ID.search(name) is not None


def clean(cell: Cell) -> Cell:
    """Value of a cell; None if it is missing."""
    if isinstance(cell, str):
        text = cell.strip()
        return None if text.lower() in MISSING else text
    if isinstance(cell, float) and math.isnan(cell):
        return None
    return None if isinstance(cell, list | tuple) and not cell else cell


def number_of(cell: Cell) -> float | None:
    """Number of a cell, None if it is none; a truth value of Python is 0 or 1."""
    if isinstance(cell, bool | int | float):
        return float(cell)
    try:
        return float(cell)
    except (TypeError, ValueError):
        return None


def words_of(cell: Cell) -> list[str]:
    """Classes of a cell that may have several."""
    if isinstance(cell, list | tuple):
        return [str(each).strip() for each in cell]
    text = str(cell)
    separator = next((each for each in SEPARATORS if each in text), None)
    parts = text.split(separator) if separator else [text]
    return [part.strip() for part in parts if part.strip()]


def left_out(name: str, cells: Sequence[Cell], why: str) -> Column:
    """Column without attributes."""
    return Column(name, (), torch.empty(len(cells), 0, dtype=torch.double), why)


# Values -------------------------------------------------------------------------------------------


def several(name: str, cells: Sequence[Cell]) -> Column:
    """Column with several classes per picture: one binary attribute for each class."""
    sets = [None if clean(cell) is None else set(words_of(cell)) for cell in cells]
    classes = sorted({word for words in sets if words for word in words})
    rows = [[math.nan if words is None else float(each in words) for each in classes] for words in sets]
    attributes = tuple(Attribute(f"{name}: {each}", "binary", group=name) for each in classes)
    return Column(name, attributes, torch.tensor(rows, dtype=torch.double))


def category(name: str, cells: Sequence[Cell]) -> Column:
    """Column with one class per picture."""
    texts = [None if clean(cell) is None else class_name(clean(cell)) for cell in cells]
    classes = sorted({text for text in texts if text is not None}, key=by_number)
    if len(classes) < 2:
        return left_out(name, cells, f"it has one class only, {classes[0]}")
    place = {text: float(i) for i, text in enumerate(classes)}
    values = [math.nan if text is None else place[text] for text in texts]
    return Column(name, (Attribute(name, "category", classes=tuple(classes)),), column_of(values))


def numeric(name: str, cells: Sequence[Cell], kind: Literal["binary", "real", "circular"]) -> Column:
    """Column with one number per picture, or a truth value."""
    values = [number_in(name, cell, kind) for cell in map(clean, cells)]
    infinite = [row for row, value in enumerate(values) if math.isinf(value)]
    if infinite:
        rows = counted([str(row + 1) for row in infinite], "infinite values, of the pictures number")
        raise UserError(f"column {name}: {rows}; leave them empty, or set `columns: {{{name}: ignore}}`")
    finite = [value for value in values if not math.isnan(value)]
    if kind == "binary":
        values = [value if math.isnan(value) else float(value > 0) for value in values]
        return Column(name, (Attribute(name, "binary"),), column_of(values))
    low, high = (0.0, 1.0) if kind == "circular" else (min(finite), max(finite))
    if low == high:
        return left_out(name, cells, f"it has one value only, {low:g}")
    return Column(name, (Attribute(name, kind, low=low, high=high),), column_of(values))


def number_in(name: str, cell: Cell, kind: str) -> float:
    """Number of a cell of a column that is numeric; NaN if it is missing."""
    if cell is None:
        return math.nan
    if isinstance(cell, str) and cell.lower() in TRUTH:
        return TRUTH[cell.lower()]
    number = number_of(cell)
    if number is None:
        raise UserError(f"column {name}: expected {kind} values, got {str(cell)[:40]!r}")
    return number


def class_name(cell: Cell) -> str:
    """Name of a class; a whole number is written without a decimal point."""
    number = number_of(cell)
    return str(int(number)) if isinstance(cell, int | float) and number == int(cell) else str(cell)


def by_number(text: str) -> tuple[float, str]:
    """Key of the order of classes: numbers by their value, then texts."""
    number = number_of(text)
    return (math.inf if number is None or math.isnan(number) else number, text)


def column_of(values: Sequence[float]) -> Tensor:
    """Values as a column, fp64 (n, 1)."""
    return torch.tensor(values, dtype=torch.double)[:, None]
