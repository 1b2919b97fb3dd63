"""Results of the tools in docs/results, and their tables made again from the figures that are stored there.

A tool measures plain figures, and builds its tables from them by a function without side effects. So
`--again` makes the tables anew without a measurement. A table of the old file that the tool does not make is
kept, and so are rows, where the tool allows it: they were written by hand, or by a run that is gone.
"""

import argparse
import hashlib
import json
import re
import shlex
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.display.results import Made, Result, Shown
from flows.storage.files import strict, without_folders, write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parents[1] / "docs" / "results"
MODELS = {
    "nice": "NICE", "realnvp": "RealNVP", "glow": "Glow", "lia": "LIA", "dcgan": "DCGAN", "pggan": "PGGAN",
    "stylegan": "StyleGAN", "biggan": "BigGAN",
}  # fmt: skip
"""Names of the models in tables, by the last part of the name of a checkpoint."""
WORDS = {2: "two", 3: "three", 4: "four", 6: "six", 8: "eight", 10: "ten", 20: "twenty", 50: "fifty"}
"""Numbers that are spelled out in titles."""
Build = Callable[[Any, Made], Result]


def new_parser(text: str | None) -> argparse.ArgumentParser:
    """Parser with the options that all tools share.

    Args:
        text: Docstring of the tool.
    """
    parser = argparse.ArgumentParser(description=text, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the JSON file")
    parser.add_argument(
        "--again", action="store_true", help="measure nothing; make the tables from the figures in the file"
    )
    return parser


def command() -> str:
    """Command line of this process as it was typed; absolute paths are reduced to their last names."""
    parts = [argument.rpartition("=") for argument in sys.argv[1:]]
    typed = [option + sign + without_folders(value) for option, sign, value in parts]
    return shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *typed])


def stored(output: Path, name: str) -> Result | None:
    """Result in the file of a name, if there is one."""
    path = output / f"{name}.json"
    return Result.load(path) if path.is_file() else None


def publish(
    given: argparse.Namespace,
    name: str,
    build: Build,
    measure: Callable[[], Any],
    rows_of: Collection[str] = (),
    read: bool = False,
) -> Result:
    """Measure, unless the tables are made again, then write the result and print its tables.

    Args:
        given: Options of `new_parser`.
        name: Name of the file, without its suffix.
        build: Function that makes the result of figures.
        measure: Function that returns the figures.
        rows_of: Names of the tables that keep rows of the old file.
        read: Whether the figures are read from reports. Then the old command and day stay while the figures
            are the same.

    Raises:
        SystemExit: The tables cannot be made again, because the file has no figures.
    """
    old = stored(given.output, name)
    if given.again:
        if old is None or old.data is None:
            raise SystemExit(f"{given.output / name}.json has no figures to make tables of")
        data, made = old.data, old.made
    else:
        data = strict({"": measure()})[""]
        made = old.made if read and old and old.data == data else Made.now(command())
    result = kept(build(data, made), old, rows_of)
    result.save(given.output / f"{name}.json")
    for shown in result.tables.values():
        print(f"\n{shown.title or result.title}\n")
        shown.table.print()
    return result


def kept(result: Result, old: Result | None, rows_of: Collection[str] = ()) -> Result:
    """Result with the tables and rows of an old one that it lacks, and then with its note.

    Args:
        result: Result that a tool made.
        old: Result in the file, if there is one.
        rows_of: Names of the tables that keep rows, those whose first cell is in no new row.
    """
    if old is None:
        return result
    tables = {**old.tables, **result.tables}
    for name in rows_of:
        if name in old.tables and name in result.tables:
            rows = [*tables[name].rows, *missing(old.tables[name], tables[name])]
            tables[name] = replace(tables[name], rows=rows)
    made = result.made
    if tables != result.tables and not made.note:
        made = replace(made, note=old.made.note)
    return replace(result, tables=tables, made=made)


def missing(old: Shown, new: Shown) -> list[list[str]]:
    """Rows of an old table whose first cell is in no row of a new one."""
    present = {row[0] for row in new.rows}
    return [row for row in old.rows if row[0] not in present]


def digest_of(data: Any) -> str:
    """SHA-256 of the JSON text of a result's figures, which a plot of them has as `Source`."""
    text = json.dumps(data, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def save_plot(figure: "Figure", result: Result, path: Path) -> None:
    """Write a plot of a result as PNG, with the digest of the figures in its metadata."""
    source = {"Source": digest_of(result.data)}
    write_atomically(path, lambda place: figure.savefig(place, dpi=110, format="png", metadata=source))


# Cells --------------------------------------------------------------------------------------------


def model_name(checkpoint: str) -> str:
    """Name of a model in tables, from that of its checkpoint: LIA for `scenes-lia`."""
    return MODELS.get(checkpoint.rpartition("-")[2], checkpoint)


def in_words(number: int) -> str:
    """Number as a word, if it is one of `WORDS`."""
    return WORDS.get(number, f"{number:,}")


def number(row: dict[str, Any], name: str) -> float:
    """Figure of a JSON file, which has null with a reason for NaN and for infinity."""
    if row[name] is None:
        return float("inf" if row.get(f"{name}_reason") in ("exact", "infinite") else "nan")
    return float(row[name])


def short_exponent(text: str) -> str:
    """Figure without the leading zero of its exponent: 2.2e-5 for 2.2e-05."""
    return re.sub(r"e([-+])0", r"e\1", text)
