"""Tables on the terminal, of which nothing is cut."""

from collections.abc import Sequence

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

SEPARATOR = 3
"""Width of the space between two columns of a table, at most."""
NARROWEST = 12
"""Width to which a column of text is broken at least, before whole columns are left out."""


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], numeric: Sequence[bool]) -> None:
    """Print a table on the terminal, with text aligned left and numbers aligned right.

    No cell is cut: without a terminal, the table has its natural width; on a terminal, texts are broken into
    lines, and columns that still do not fit are left out, which is said.
    """
    console = Console()
    longest = [
        max(len(line) for cell in cells for line in cell.split("\n"))
        for cells in zip(head, *rows, strict=True)
    ]
    narrowest = [
        each if is_number else min(each, NARROWEST) for each, is_number in zip(longest, numeric, strict=True)
    ]
    if not console.is_terminal:
        console.width = max(console.width, sum(longest) + SEPARATOR * len(head) + SEPARATOR)
    kept = len(head)
    while kept > 2 and sum(narrowest[:kept]) + SEPARATOR * (kept + 1) > console.width:
        kept -= 1
    table = Table(padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    for name, is_number in zip(head[:kept], numeric, strict=False):
        table.add_column(
            escape(name), justify="right" if is_number else "left", no_wrap=is_number, overflow="fold"
        )
    for row in rows:
        table.add_row(*map(escape, row[:kept]))
    console.print(table)
    if kept < len(head):
        print(f"left out, because the terminal is narrow: {', '.join(head[kept:])}; --json has all columns")
