"""Parts of reports: an additional section of one kind of model, and a finished report."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from flows.display.table import Table


class Section(NamedTuple):
    """Additional section of a report.

    Attributes:
        values: Entries of report.json.
        lines: Markdown lines of the model card.
        pictures: File name to uint8 (C, height, width).
    """

    values: dict[str, Any]
    lines: list[str]
    pictures: dict[str, Tensor]


@dataclass(frozen=True)
class RunReport:
    """Report of a run, which was written to its folder.

    Attributes:
        values: Contents of report.json.
        summary: Sentences with the main figures.
        tables: Tables of further figures.
        notes: Sentences below the tables.
    """

    values: dict[str, Any]
    summary: Sequence[str] = ()
    tables: Sequence[Table] = field(default_factory=tuple)
    notes: Sequence[str] = ()

    def show(self) -> None:
        """Print summary, tables and notes."""
        for text in self.summary:
            print(text)
        for table in self.tables:
            table.print()
        for text in self.notes:
            print(text)
