"""Self-contained HTML pages with tables and pictures."""

import base64
import html
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from flows.display.drawing import encode_picture, new_figure
from flows.display.formats import VECTORS, Format, write_tables, write_vectors
from flows.display.table import Table
from flows.storage.files import write_atomically, write_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure  # imported only where a figure is made; many commands make none

    from flows.display.drawing import Drawn

STYLE = (
    "body{font:14px system-ui;margin:2em;max-width:110em}table{border-collapse:collapse}"
    "td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:left}.n{text-align:right}"
    "img{max-width:100%;image-rendering:pixelated}"
)


def document(title: str, *parts: str) -> str:
    """Complete HTML page made of pieces of HTML."""
    name = html.escape(title)
    return (
        f"<!doctype html><meta charset=utf-8><title>{name}</title><style>{STYLE}</style><h1>{name}</h1>"
        f"{''.join(parts)}\n"
    )


def as_text(value: float | int, digits: int = 4) -> str:
    """Format a float with `digits` significant digits; – for NaN."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.{digits}g}"
    return str(value)


def as_fixed(value: float, spec: str = ".4f", unit: str = "") -> str:
    """Format a float by a format specification; – for NaN, ∞ for infinity."""
    return f"{value:{spec}}{unit}" if math.isfinite(value) else as_text(value)


def as_interval(low: float, high: float, spec: str = ".3g", unit: str = "") -> str:
    """Format an interval, `low … high`; – if one of its ends is NaN."""
    if math.isnan(low) or math.isnan(high):
        return as_text(math.nan)
    return f"{as_fixed(low, spec)} … {as_fixed(high, spec)}{unit}"


# Pictures -----------------------------------------------------------------------------------------


def save_sheet(sheet: "Drawn", path: Path, formats: Sequence[Format] = ()) -> str:
    """Write a PNG, and files in the formats without pixels; returns the PNG in base64, for `picture_html`."""
    content = encode_picture(sheet)
    write_atomically(path, lambda place: place.write_bytes(content))
    write_vectors(sheet, path, formats)
    return base64.b64encode(content).decode()


def picture_html(name: str, data: str) -> str:
    """HTML of an image with its name above it; `data` is a PNG in base64."""
    label = html.escape(name)
    return f'<h2>{label}</h2><img alt="{label}" src="data:image/png;base64,{data}">'


def write_page(
    out: Path,
    title: str,
    sheets: "Mapping[str, Drawn]",
    before: str = "",
    after: str = "",
    tables: Mapping[str, Table] | None = None,
    formats: Sequence[Format] = (),
) -> list[str]:
    """Write index.html with the given sheets, and each sheet as a PNG beside it; returns the file names.

    Args:
        out: Output folder.
        title: Title of the page.
        sheets: Pictures by name.
        before: HTML above the pictures.
        after: HTML below the pictures.
        tables: Tables by name, for LaTeX; those of the page are in `before` and `after`.
        formats: Additional formats of tables and pictures; see `formats.Formats`.

    Raises:
        UserError: There is no such format.
    """
    more = write_tables(out, tables or {}, formats)
    written = {name: save_sheet(sheet, out / f"{name}.png", formats) for name, sheet in sheets.items()}
    page = document(title, before, *(picture_html(name, data) for name, data in written.items()), after)
    write_text(out / "index.html", page)
    forms = ["png", *(form for form in VECTORS if form in formats)]
    return ["index.html", *(f"{name}.{form}" for form in forms for name in written), *more]


def heat_map(
    values: Tensor,
    rows: Sequence[str],
    columns: Sequence[str],
    title: str,
    digits: int = 2,
    certain: Tensor | None = None,
    share: bool = False,
) -> "Figure":
    """Plot a matrix as coloured, numbered cells; non-finite values have grey cells.

    Args:
        values: (rows, columns).
        rows: Row labels.
        columns: Column labels.
        title: Title above the matrix.
        digits: Number of decimal places.
        certain: bool (rows, columns); uncertain values are printed in pale grey. None: all are certain.
        share: Whether values are fractions in [0, 1], lower is better; otherwise the colours are symmetric
            about 0.
    """
    figure = new_figure(3 + 0.55 * len(columns), 1.9 + 0.3 * len(rows))
    axes = figure.subplots()
    axes.set_facecolor("0.9")
    limit = 1.0 if share else max(1e-6, float(values.nan_to_num().abs().max()))
    colours, low = ("viridis_r", 0.0) if share else ("RdBu_r", -limit)
    # Cells and no image, because viewers of PDF blur the few pixels of one.
    image = axes.pcolormesh(values.numpy(), cmap=colours, vmin=low, vmax=limit, shading="nearest")
    axes.invert_yaxis()
    for i, row in enumerate(values.tolist()):
        for j, value in enumerate(row):
            if math.isfinite(value):
                pale = certain is not None and not certain[i, j]
                tone = "0.75" if pale else "w" if abs(value) > 0.6 * limit else "k"
                text = f"{round(value, digits) + 0.0:.{digits}f}"  # no −0.0
                axes.text(j, i, text, ha="center", va="center", fontsize=6.5, color=tone)
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=7.5)
    axes.set_yticks(range(len(rows)), rows, fontsize=7.5)
    axes.set_title(title, fontsize=9)
    bar = figure.colorbar(image, ax=axes, shrink=0.8)
    if bar.solids is not None:  # those of many colours would be pixels
        bar.solids.set(rasterized=False, edgecolor="face")
    return figure
