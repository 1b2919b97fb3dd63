"""One table: on the terminal, as Markdown, as HTML and for LaTeX, with numbered notes below it."""

import html
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flows.core.extras import optional

FIGURE = r"(?:[-+±]?\d[\d.,]*(?:e[-+]?\d+)?(?: %| dB)?|[–∞])"
NUMBER = re.compile(rf"{FIGURE}(?: … {FIGURE})?(?: \({FIGURE}(?:(?: …|;) {FIGURE})?\))?")
"""Text of a figure: a number, also with an exponent or in percent, an interval, a number with its interval in
brackets, or the sign of an unknown or infinite one.
"""


class Noted(str):
    """Cell or name of a column with a sentence, which stands once below the table, under a number.

    Args:
        text: Text of the cell; – where the sentence says why there is no figure.
        note: Sentence; empty for none.
    """

    note: str

    def __new__(cls, text: str, note: str = "") -> "Noted":
        made = super().__new__(cls, text)
        made.note = note
        return made


def note_of(cell: str) -> str:
    """Sentence of a cell; empty if it has none."""
    return cell.note if isinstance(cell, Noted) else ""


def without_figures(reason: str, columns: int) -> list[str]:
    """Cells of a row that has no figures: –, the first with the reason as its note."""
    return [Noted("–", reason), *["–"] * (columns - 1)]


@dataclass(frozen=True)
class Table:
    """Rows of cells under named columns.

    Columns in which every cell is a figure are aligned right. Equal notes of cells share one number.

    Attributes:
        columns: Names of the columns.
        rows: Cells of each row, as text; see `page.as_text` and `Noted`.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]

    def __bool__(self) -> bool:
        return bool(self.rows)

    def numeric(self) -> list[bool]:
        """Whether every cell of a column is a figure or empty, for each column."""
        return [
            any(row[i] for row in self.rows)
            and all(not row[i] or NUMBER.fullmatch(row[i]) for row in self.rows)
            for i in range(len(self.columns))
        ]

    def notes(self) -> list[str]:
        """Different notes of the columns and cells, in reading order; note i has the number i + 1."""
        cells = [cell for row in (self.columns, *self.rows) for cell in row]
        return list(dict.fromkeys(note for cell in cells if (note := note_of(cell))))

    def marked(
        self, mark: str = " [{}]", text: Callable[[str], str] = str
    ) -> tuple[list[str], list[list[str]]]:
        """Columns and rows with the numbers of the notes behind their cells: `– [1]`.

        Args:
            mark: Text behind a cell with a note, with {} for the number.
            text: Function that formats the text of a cell.
        """
        marks = {note: mark.format(i) for i, note in enumerate(self.notes(), 1)}
        head, *rows = [
            [text(cell) + marks.get(note_of(cell), "") for cell in row] for row in (self.columns, *self.rows)
        ]
        return head, rows

    def print(self) -> None:
        """Print the table with its notes on the terminal; see `terminal.print_table`."""
        optional("rich")  # imported only where something is printed
        from flows.display.terminal import print_table

        print_table(*self.marked(), self.numeric())
        for i, note in enumerate(self.notes(), 1):
            print(f"[{i}] {note}")

    def markdown(self, names: int | Sequence[int] | None = None) -> str:
        """The table with its notes as Markdown, with a final newline.

        Args:
            names: Number of columns of text, which come first, or their places; None finds the columns of
                figures.
        """
        texts = range(names) if isinstance(names, int) else names
        numeric = self.numeric() if texts is None else [i not in texts for i in range(len(self.columns))]
        rule = ["--:" if right else "---" for right in numeric]
        head, rows = self.marked()
        lines = [f"| {' | '.join(cells)} |" for cells in (head, rule, *rows)]
        notes = [f"\n[{i}] {note}" for i, note in enumerate(self.notes(), 1)]
        return "\n".join([*lines, *notes]) + "\n"

    def html(self) -> str:
        """The table with its notes as HTML."""
        kinds = [" class=n" if right else "" for right in self.numeric()]
        names, rows = self.marked("<sup>{}</sup>", html.escape)
        head = "".join(f"<th>{name}</th>" for name in names)
        cells = [[f"<td{kind}>{cell}</td>" for kind, cell in zip(kinds, row, strict=True)] for row in rows]
        lines = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
        notes = "<br>".join(f"<sup>{i}</sup> {html.escape(note)}" for i, note in enumerate(self.notes(), 1))
        return f"<table><tr>{head}</tr>{lines}</table>" + (f"<p>{notes}</p>" if notes else "")
