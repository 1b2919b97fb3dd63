"""Helpers of the verbs: labels from the command line, tables, JSON results and picture files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jsonargparse.typing import restricted_number_type
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from flows.errors import UserError
from flows.files import SPECIAL, file_in_place_of, is_special, to_json, write_atomically
from flows.models.base import LatentModel
from flows.page import check_picture

Zoom = restricted_number_type("Zoom", int, [(">=", 1), ("<=", 64)])
"""Factor by which a sheet enlarges every pixel."""


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table on the terminal, with text aligned left and numbers aligned right."""
    table = Table(padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    for i, name in enumerate(head):
        numeric = all(row[i].lstrip("-+").replace(".", "").isdigit() or row[i] in "–∞" for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*map(escape, row))
    console = Console()
    console.width = max(console.width, 130)
    console.print(table)


def option_labels(model: LatentModel, label: int | None, n: int) -> Tensor | None:
    """Labels (n,), all equal to the option --label; None without it, so that the model's default applies.

    Raises:
        UserError: The label is out of range, or the model is not class-conditional.
    """
    if label is None:
        return None
    if not model.num_classes:
        raise UserError("--label: this model is not class-conditional")
    if not 0 <= label < model.num_classes:
        raise UserError(f"--label: expected a class in 0 … {model.num_classes - 1}, got {label}")
    return torch.full((n,), label, device=model.device)


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write the result of a verb as JSON if there is a path; numbers that are not finite become null."""
    if path is not None:
        text = to_json(result)
        write_atomically(path, lambda target: target.write_text(text))


def check_outputs(
    *,
    out: Path | None = None,
    output: Path | None = None,
    file: Path | None = None,
    picture: Path | None = None,
    json: Path | None = None,
    option: str = "--output",
    inputs: Sequence[Path] = (),
) -> None:
    """Check before the work that the results of a verb can be written.

    Args:
        out: Output folder of `--out`.
        output: Output folder of `option`.
        file: Output file of `option`.
        picture: Output picture of `option`, in a format that its suffix names.
        json: File of `--json`.
        option: Name of the option of `output`, `file` and `picture`.
        inputs: Files that the verb reads.

    Raises:
        UserError: There is a file where a folder is expected, or a folder where a file is expected, or a
            device or pipe, or the suffix of a picture is unknown, or two paths are the same.
    """
    given = {option: output or file or picture, "--out": out, "--json": json}
    named = [(name, path) for name, path in given.items() if path is not None]
    for name, path in named:
        if "\0" in str(path):
            raise UserError(f"{name}: expected a path, got one with a null character")
        if is_special(path):
            raise UserError(f"{name} {path}: {SPECIAL}")
        for other, taken in [*named, *(("an input", each) for each in inputs)]:
            if other != name and taken.resolve() == path.resolve():
                raise UserError(f"{name} {path}: {other} is the same path; choose another one")
    if picture is not None:
        check_picture(picture, option)
    for name, folder in (("--out", out), (option, output)):
        if folder is not None:
            check_folder(folder, name)
    for name, target in ((option, file), (option, picture), ("--json", json)):
        if target is not None:
            if target.is_dir():
                raise UserError(f"{name} {target}: expected a file, found a folder")
            check_folder(target.parent, name)


def check_folder(folder: Path, option: str = "--out") -> None:
    """Raise UserError unless `folder` is a folder or can be created."""
    if file := file_in_place_of(folder):
        where = "" if file == folder else f" at {file}"
        raise UserError(f"{option} {folder}: expected a folder, found a file{where}")
