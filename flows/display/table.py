"""One table: on the terminal, as Markdown, and as HTML."""

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass

from flows.core.extras import optional

FIGURE = r"(?:[-+±]?\d[\d.,]*(?:e[-+]?\d+)?(?: %| dB)?|[–∞])"
NUMBER = re.compile(rf"{FIGURE}(?: … {FIGURE})?(?: \({FIGURE}(?:(?: …|;) {FIGURE})?\))?")
"""Text of a figure: a number, also with an exponent or in percent, an interval, a number with its interval in
brackets, or the sign of an unknown or infinite one.
"""


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns.

    Columns in which every cell is a figure are aligned right.

    Attributes:
        columns: Names of the columns.
        rows: Cells of each row, as text; see `page.as_text`. The last cell of a row with fewer cells than
            columns belongs to all columns that are left, as a note does.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def numeric(self) -> list[bool]:
        """Whether every cell of a column is a figure or empty, for each column."""
        return [
            any(row[i] for row in self.whole())
            and all(not row[i] or NUMBER.fullmatch(row[i]) for row in self.whole())
            for i in range(len(self.columns))
        ]

    def whole(self) -> list[Sequence[str]]:
        """Rows with a cell for every column."""
        return [row for row in self.rows if len(row) == len(self.columns)]

    def padded(self) -> list[list[str]]:
        """Rows, with empty cells after those of a note."""
        return [[*row, *[""] * (len(self.columns) - len(row))] for row in self.rows]

    def print(self) -> None:
        """Print the table on the terminal; see `terminal.print_table`."""
        optional("rich")  # imported only where something is printed
        from flows.display.terminal import print_table

        print_table(self.columns, self.padded(), self.numeric())

    def markdown(self, names: int | Sequence[int] | None = None) -> str:
        """The table as Markdown, with a final newline.

        Args:
            names: Number of columns of text, which come first, or their places; None finds the columns of
                figures.
        """
        texts = range(names) if isinstance(names, int) else names
        numeric = self.numeric() if texts is None else [i not in texts for i in range(len(self.columns))]
        rule = ["--:" if right else "---" for right in numeric]
        return "\n".join(f"| {' | '.join(cells)} |" for cells in (self.columns, rule, *self.padded())) + "\n"

    def html(self) -> str:
        """The table as HTML."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        lines = "".join(f"<tr>{self._cells(row)}</tr>" for row in self.rows)
        return f"<table><tr>{head}</tr>{lines}</table>"

    def _cells(self, row: Sequence[str]) -> str:
        kinds = [" class=n" if right else "" for right in self.numeric()][: len(row)]
        if len(row) < len(self.columns):
            kinds[-1] = f" colspan={len(self.columns) - len(row) + 1}"
        return "".join(f"<td{kind}>{html.escape(cell)}</td>" for kind, cell in zip(kinds, row, strict=True))
