"""Measured tables of the documentation: one JSON file each, from which the pages are made.

A tool writes `docs/results/NAME.json`; `python docs/results.py` writes the page of the file, and the tables
that other pages show.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import flows
from flows.core.hardware import machine
from flows.core.schema import parse, read_json, unaltered
from flows.display.table import Table
from flows.storage.files import strict, write_text

LONGEST_LINE = 400
"""Length from which a list or object is broken into lines."""


@dataclass(frozen=True)
class Made:
    """Command, versions, machine and day of a measurement.

    Attributes:
        command: Command that measures them again; empty if there is none, which the note explains.
        version: Version of flows.
        machine: Processor and number of cores.
        threads: Threads of torch; None if the tool sets them for each part, or uses none.
        date: Day of the measurement, as YYYY-MM-DD.
        torch: Version of torch; empty if it is not known any more.
        note: Sentences on whatever else the figures depend on.
    """

    command: str
    version: str
    machine: str
    threads: int | None
    date: str
    torch: str = ""
    note: str = ""

    @classmethod
    def now(cls, command: str, note: str = "") -> "Made":
        """Figures that this process measured today."""
        import torch

        return cls(
            command=command,
            version=flows.__version__,
            machine=machine(),
            threads=torch.get_num_threads(),
            date=datetime.now(UTC).date().isoformat(),
            torch=torch.__version__,
            note=note,
        )

    def sentence(self) -> str:
        """One line below a table."""
        threads = "" if self.threads is None else f", {self.threads} thread{'s' * (self.threads != 1)}"
        versions = f"flows {self.version}" + (f", torch {self.torch}" if self.torch else "")
        note = f" {self.note}" if self.note else ""
        by = f" by `{self.command}`" if self.command else ""
        return f"Measured{by} on {self.date}: {versions}; {self.machine}{threads}.{note}"


@dataclass(frozen=True)
class Shown:
    """Table of a result.

    Attributes:
        columns: Names of the columns.
        rows: Cells as text.
        title: Heading on the page of the result; empty for none.
        note: Sentences below the table.
        names: Places of the columns of text; None finds the columns of figures.
    """

    columns: list[str]
    rows: list[list[str]]
    title: str = ""
    note: str = ""
    names: list[int] | None = None

    @property
    def table(self) -> Table:
        """Table without title and note."""
        return Table(self.columns, self.rows)

    def markdown(self) -> str:
        """Table as Markdown, with a final newline."""
        return self.table.markdown(self.names)


@dataclass(frozen=True)
class Result:
    """Tables of one measurement.

    Attributes:
        title: Heading of the page.
        made: Command, versions, machine and day.
        tables: Tables by name.
        text: Markdown above the tables: what was measured, and how.
        pictures: Files beside the JSON, or below the folder of the documentation, with their captions.
        data: Figures as the tool has them.
    """

    title: str
    made: Made
    tables: dict[str, Shown]
    text: str = ""
    pictures: dict[str, str] = field(default_factory=dict)
    data: Any = None

    def save(self, path: Path) -> None:
        """Write the JSON file; figures that are not finite are null, with their reasons (`files.to_json`)."""
        values = {**asdict(self), "data": strict({"": self.data})[""]}
        write_text(path, as_json(values) + "\n")

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read a JSON file. Raises CheckpointError if it is damaged."""
        with unaltered(path):
            found: Result = parse(cls, read_json(path.read_bytes()))
        return found

    def page(self, name: str) -> str:
        """Page of the result as Markdown."""
        parts = [f"# {self.title}", self.text]
        for table in self.tables.values():
            parts += [f"## {table.title}" if table.title else "", table.markdown().rstrip(), table.note]
        parts += [f"![{caption}]({file})\n\n{caption}" for file, caption in self.pictures.items()]
        parts += [self.made.sentence(), f"The figures: [{name}.json]({name}.json)."]
        return "\n\n".join(part.strip() for part in parts if part) + "\n"


def as_json(value: Any, indent: str = "\n") -> str:
    """JSON with an indent of one, in which every innermost list or object that is not too long is one line.

    Args:
        value: Plain value.
        indent: Line break with the indent of the value.
    """
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    innermost = not any(isinstance(each, dict | list) for each in inner)
    if not inner or (innermost and len(text) < LONGEST_LINE):
        return text
    deeper = f"{indent} "
    if isinstance(value, dict):
        parts = [
            f"{json.dumps(key, ensure_ascii=False)}: {as_json(each, deeper)}" for key, each in value.items()
        ]
        return f"{{{deeper}{f',{deeper}'.join(parts)}{indent}}}"
    return f"[{deeper}{f',{deeper}'.join(as_json(each, deeper) for each in value)}{indent}]"


BLOCK = re.compile(r"(<!-- result: ([\w-]+)(?:\.([\w-]+))? -->\n).*?(<!-- end -->)", re.S)
"""Table in a page: between `<!-- result: NAME.TABLE -->` and `<!-- end -->`."""


def filled(text: str, results: Mapping[str, Result]) -> str:
    """Text of a page with its tables made anew.

    Raises:
        KeyError: There is no such result or table.
    """

    def replaced(found: re.Match[str]) -> str:
        tables = results[found[2]].tables
        table = tables[found[3]] if found[3] else next(iter(tables.values()))
        return f"{found[1]}\n{table.markdown()}\n{found[4]}"

    return BLOCK.sub(replaced, text)
