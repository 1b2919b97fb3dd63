"""Progress bars."""

from collections.abc import Iterable
from typing import Any, TypeVar

from flows.core.extras import optional
from flows.display.notebook import has_widgets

T = TypeVar("T")


def progress(items: Iterable[T], title: str, total: int | None = None) -> Iterable[T]:
    """Items with a bar on standard error while they are consumed; it disappears at the end.

    Args:
        items: Items.
        title: Text before the bar.
        total: Number of items; None takes their length.
    """
    bar: Iterable[T] = _tqdm()(items, desc=title, total=total, leave=False)
    return bar


def bar(**settings: Any) -> Any:
    """Bar that is moved by hand; tqdm documents the settings."""
    return _tqdm()(**settings)


def _tqdm() -> Any:
    """Class of the bars: a widget where a notebook can show one, else text."""
    return optional("tqdm.notebook" if has_widgets() else "tqdm").tqdm
