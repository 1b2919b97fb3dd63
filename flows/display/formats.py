"""Formats for a paper, which studies write beside their pages: tables for LaTeX, figures without pixels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from flows.core.checks import did_you_mean
from flows.core.options import Options
from flows.display.drawing import Vector, encode_figure
from flows.display.latex import as_latex
from flows.display.table import Table
from flows.errors import UserError
from flows.storage.files import write_atomically, write_text

if TYPE_CHECKING:
    from flows.display.drawing import Drawn

Format = Literal["latex", "pdf", "svg"]
VECTORS: tuple[Vector, ...] = get_args(Vector)


@dataclass(frozen=True, kw_only=True)
class Formats(Options):
    """Formats of the files for a paper.

    Attributes:
        format: Additional formats of tables and figures, for a paper, such as `latex,pdf`. `latex`: each
            table as table-*.tex, for the packages booktabs and threeparttable. `pdf`, `svg`: each figure
            beside its PNG, with curves and text as vectors and images with exactly their pixels.

    Raises:
        UserError: There is no such format.
    """

    format: list[str] | None = None

    def __post_init__(self) -> None:
        check_formats(self.chosen)

    @property
    def chosen(self) -> tuple[Format, ...]:
        """Names of the formats, each once; words may be joined by commas."""
        words = [word.strip() for text in self.format or () for word in text.split(",")]
        return cast(tuple[Format, ...], tuple(dict.fromkeys(word for word in words if word)))


def check_formats(formats: Sequence[str]) -> None:
    """Raise UserError for the first format that is not known."""
    for name in formats:
        if name not in get_args(Format):
            raise UserError(
                f"--format: expected some of {', '.join(get_args(Format))}, got {name!r}; Markdown, JSON and "
                f"PNG do not depend on it.{did_you_mean(name, get_args(Format))}"
            )


def write_tables(out: Path, tables: Mapping[str, Table], formats: Sequence[Format]) -> list[str]:
    """Write each table as table-NAME.tex, if LaTeX is among the formats; returns the names of the files.

    Such files of an earlier study in this folder are removed, because they have other figures.

    Args:
        out: Output folder.
        tables: Tables by name.
        formats: Formats.

    Raises:
        UserError: There is no such format.
    """
    check_formats(formats)
    for old in out.glob("table-*.tex"):
        old.unlink()
    if "latex" not in formats:
        return []
    names = {f"table-{name}.tex": table for name, table in tables.items() if table}
    for name, table in names.items():
        write_text(out / name, as_latex(table))
    return list(names)


def write_vectors(sheet: "Drawn", path: Path, formats: Sequence[Format]) -> list[str]:
    """Write a picture beside its PNG in the formats without pixels; returns the names of the files.

    Files of these names of an earlier study are removed, because they show other figures.

    Args:
        sheet: Picture, sheet or figure.
        path: File of the PNG.
        formats: Formats.
    """
    written = []
    for form in VECTORS:
        place = path.with_suffix(f".{form}")
        if form in formats:
            content = encode_figure(sheet, form)
            write_atomically(place, lambda target, content=content: target.write_bytes(content))  # type: ignore[misc]
            written.append(place.name)
        else:
            place.unlink(missing_ok=True)
    return written
