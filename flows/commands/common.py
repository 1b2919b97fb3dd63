"""Helpers of the verbs: labels from the command line, tables, JSON results and picture files."""

from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flows import images as pixels
from flows.errors import UserError
from flows.files import to_json, write_atomically
from flows.models.base import LatentModel


def print_table(head: list[str], rows: list[list[str]]) -> None:
    """Print a table on the terminal, with text aligned left and numbers aligned right."""
    table = Table(padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    for i, name in enumerate(head):
        numeric = all(row[i].lstrip("-+").replace(".", "").isdigit() or row[i] in "–∞" for row in rows)
        table.add_column(name, justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, 130)
    console.print(table)


def labels_or_none(model: LatentModel, label: int | None, n: int) -> Tensor | None:
    """Labels (n,), all equal to `label`, for a class-conditional model; None for other models.

    Raises:
        UserError: The label is missing or out of range, or the model is not class-conditional.
    """
    if not model.num_classes:
        if label is not None:
            raise UserError("--label: this model is not class-conditional")
        return None
    if label is None or not 0 <= label < model.num_classes:
        raise UserError(f"--label: expected a class in 0 … {model.num_classes - 1}, got {label}")
    return torch.full((n,), label, device=model.device)


def write_json(path: Path | None, result: dict[str, Any]) -> None:
    """Write the result of a verb as JSON if there is a path; numbers that are not finite become null."""
    if path is not None:
        text = to_json(result)
        write_atomically(path, lambda target: target.write_text(text))


def save_picture(image: Tensor, path: Path) -> None:
    """Write an image, uint8 (C, H, W), to a picture file, atomically."""
    write_atomically(path, lambda target: pixels.to_pillow(image).save(target))
