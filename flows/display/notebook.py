"""Results as the output of a cell in a notebook."""

import base64
import html
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Protocol

from flows.display.table import Table

STYLE = ".flows table{border-collapse:collapse}.flows .n{text-align:right}.flows td,.flows th{padding:.2em}"
"""Style of the tables alone: a notebook keeps the look of its own page."""


class HasTables(Protocol):
    """Result with tables, and sentences below them."""

    @property
    def notes(self) -> Sequence[str]:
        """Sentences below the tables."""
        ...

    def tables(self) -> Sequence[Table]:
        """Tables of the result."""
        ...


class ShownInNotebooks:
    """Base class of results with `tables` and `notes`, which a notebook shows as HTML."""

    def _repr_html_(self: HasTables) -> str:
        return tables_html(self.tables(), self.notes)


def tables_html(tables: Sequence[Table], notes: Sequence[str] = (), before: Sequence[str] = ()) -> str:
    """HTML of tables with sentences above and below them.

    Args:
        tables: Tables.
        notes: Sentences below.
        before: Sentences above.
    """
    above, below = ("".join(f"<p>{html.escape(text)}</p>" for text in texts) for texts in (before, notes))
    shown = "".join(table.html() for table in tables)
    return f"<div class=flows><style>{STYLE}</style>{above}{shown}{below}</div>"


def has_widgets() -> bool:
    """Whether this process is the kernel of a notebook in which progress bars can be widgets."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return type(shell).__name__ == "ZMQInteractiveShell" and find_spec("ipywidgets") is not None


def image_html(png: bytes) -> str:
    """HTML of a PNG."""
    return f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}">'
