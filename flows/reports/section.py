"""Additional section of a report, for one kind of model."""

from typing import Any, NamedTuple

from torch import Tensor


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
