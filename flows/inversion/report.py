"""Files of a comparison: tables, a grid of pictures per group, a page, and records."""

import csv
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from flows.display.drawing import draw_rows, save_images
from flows.display.notebook import ShownInNotebooks
from flows.display.page import as_text, document, picture_html, save_sheet
from flows.display.table import Table
from flows.inversion.comparison import Groups, Result
from flows.inversion.pairs import pair_name, safe_name
from flows.inversion.summary import EDIT_HEAD, Distances, edit_lines, overview, summary
from flows.storage.files import write_text

COLUMNS = {
    "psnr": "median PSNR, dB",
    "psnr_low": "lower end of the 95 % interval of the median",
    "psnr_high": "upper end of that interval",
    "worst_psnr": "minimum PSNR, dB",
    "ssim": "mean structural similarity",
    "perceptual": "mean perceptual distance ({distances.measured})",
    "identity": "mean similarity of faces by the network of --identity",
    "bit_exact": "share of bit-exact reconstructions",
    "seconds": "seconds per image, all restarts, of searches that minimise {distances.loss}",
    "steps": "optimisation steps per image and restart",
    "starts": "number of restarts: from the mean of the space, then from samples",
    "restart_gap": "median of (worst − best)/best final loss over the restarts",
    "apart": "median distance between the codes of two restarts, relative to their RMS norm",
    "failed": "share of restarts that diverged",
    "typicality": "mean of | |z|/√D − 1 |, 0 is typical",
    "log_prob": "mean log-density of the codes, nats per dimension",
    "undone": "median PSNR after invert, edit, invert, undo the edit, dB",
    "reached": "share of the requested change of a factor that edited images show; mean over directions",
    "leakage": "largest change of another score, relative to that of the own one; mean over directions",
    "edited": "median PSNR of edited images to the true edit, dB; mean over directions",
    "back": "median PSNR after edit, second inversion and the move back, dB; mean over directions",
    "code_error": "median distance to the code that generated the image, relative to that code's distance "
    "from the mean of the space",
}


SHOWN = ("psnr", "ssim", "perceptual", "bit_exact", "seconds", "steps", "undone")
"""Columns of the table on the terminal."""


@dataclass(frozen=True)
class Comparison(ShownInNotebooks):
    """Results of a comparison with what their report needs.

    Attributes:
        results: Results of `compare`.
        groups: Groups that were compared, by name.
        distances: Names of the distances.
        bits: Bits/dim by model and group; empty if they were not computed.
        pictures: Whether to write each reconstruction at its size to pictures/, too.
    """

    results: list[Result]
    groups: Groups
    distances: Distances
    bits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: bool = False

    def save(self, out: Path, title: str = "Comparison of inverters") -> list[str]:
        """Write table.csv, summary.md, overview.png, grid-*.png, edit-*.png and index.html."""
        write_comparison(out, title, self)
        there = [name for name in ("overview.png", "records") if (out / name).exists()]
        return ["index.html", "summary.md", "table.csv", f"{len(self.groups)} grids", *there]

    def tables(self) -> list[Table]:
        """Some figures of the pairs that have any."""
        rows = [result.row for result in self.results if not result.row.note]
        edited = any(not math.isnan(row.edited) for row in rows)
        names = [*SHOWN, *(("edited", "back") if edited else ())]
        cells = [
            [row.model, row.inverter, row.group, *(as_text(getattr(row, name)) for name in names)]
            for row in rows
        ]
        return [Table(["model", "inverter", "images", *names], cells)]

    @property
    def notes(self) -> list[str]:
        """Sentences on diverged searches, and the reasons of impossible and failed pairs."""
        rows = [result.row for result in self.results]
        diverged = [
            f"{row.model}, {row.inverter}, {row.group}: every search diverged for {row.diverged} of "
            f"{row.images} images, which are not in the record"
            for row in rows
            if row.diverged
        ]
        reasons = [f"{row.model}, {row.inverter}: {row.reason}" for row in rows if row.note]
        return [*diverged, *dict.fromkeys(reasons)]

    def as_dict(self) -> dict[str, Any]:
        """The table with the PSNR of every image and the figures of every edit."""
        rows = [
            {
                **result.row.as_dict(),
                "each_psnr": {
                    source.name: value
                    for source, value in zip(
                        self.groups[result.row.group].sources, result.each_psnr, strict=False
                    )
                },
                "each_edit": [asdict(edit.figures) for edit in result.edits],
            }
            for result in self.results
        ]
        return {
            "perceptual_network": self.distances.measured,
            "loss": self.distances.loss,
            "rows": rows,
            "bits_per_dim": self.bits,
        }


def write_comparison(out: Path, title: str, comparison: Comparison) -> None:
    """Write the files of a comparison; see `Comparison.save`."""
    results, groups, distances = comparison.results, comparison.groups, comparison.distances
    text = io.StringIO()
    writer = csv.DictWriter(text, list(results[0].row.as_dict()))
    writer.writeheader()
    writer.writerows(result.row.as_dict() for result in results)
    write_text(out / "table.csv", text.getvalue())
    for old in (*out.glob("grid-*.png"), *out.glob("edit-*.png")):
        old.unlink()  # left by an earlier comparison in this folder
    short = summary(results, groups, distances)
    write_text(out / "summary.md", short)
    rows = overview(results, groups)
    if rows:
        save_sheet(draw_rows(rows), out / "overview.png")
    else:
        (out / "overview.png").unlink(missing_ok=True)
    grids = {
        group: save_sheet(draw_rows(grid_rows(groups, results, group)), out / f"grid-{safe_name(group)}.png")
        for group in groups
    }
    edits = {
        f"edit: {name}": save_sheet(draw_rows(rows), out / f"edit-{safe_name(name)}.png")
        for name, rows in edit_rows(groups, results).items()
    }
    whole = page(title, comparison, grids, edits)
    write_text(out / "index.html", whole)
    if comparison.pictures:
        for result in results:
            names = [Path(source.name).stem for source in groups[result.row.group].sources]
            folder = out / "pictures" / pair_name(result.row)
            save_images(folder, names[: len(result.reconstruction)], result.reconstruction)


# Grid ---------------------------------------------------------------------------------------------


def grid_rows(groups: Groups, results: Sequence[Result], group: str) -> list[tuple[str, Tensor]]:
    """Return labelled rows for one group: the input, then each reconstruction with its error map."""
    images = groups[group].images
    rows = [("input", images)]
    for result in results:
        if result.row.group == group and not result.row.note:
            name, reconstruction = f"{result.row.model}, {result.row.inverter}", result.reconstruction
            rows += [(name, reconstruction), ("error × 4", error_map(images, reconstruction))]
    return rows


def edit_rows(groups: Groups, results: Sequence[Result]) -> dict[str, list[tuple[str, Tensor]]]:
    """Return labelled rows per direction: input, true edit, then each method's edit and way back."""
    sheets: dict[str, list[tuple[str, Tensor]]] = {}
    for result in results:
        for edit in result.edits:
            shown, name = len(edit.undone), edit.figures.direction
            if not shown:
                continue  # too few images have the factor
            images = groups[result.row.group].images[edit.rows][:shown]
            rows = sheets.setdefault(name, [("image", images), ("true edit", edit.target[:shown])])
            method = f"{result.row.model}, {result.row.inverter}"
            rows += [(method, edit.images[:shown]), ("and back", edit.undone)]
    return sheets


def error_map(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Compute four times the largest difference over the channels, uint8 (n, C, H, W)."""
    difference = (images.int() - reconstruction.int()).abs().amax(1, keepdim=True)
    return (4 * difference).clamp(max=255).byte().expand_as(images)


# Page ---------------------------------------------------------------------------------------------


def page(title: str, comparison: Comparison, grids: Mapping[str, str], edits: Mapping[str, str]) -> str:
    """Return a self-contained HTML page with table, grids and the PSNR of every image.

    Args:
        title: Title of the page.
        comparison: Comparison.
        grids: Group to its grid, a PNG in base64.
        edits: Title of a sheet of edits to the sheet, a PNG in base64.
    """
    results, groups, distances = comparison.results, comparison.groups, comparison.distances
    head = ("model", "inverter", "images", "n", *COLUMNS)
    lines = []
    for result in results:
        row = result.row
        figures = [row.reason] if row.note else [as_text(getattr(row, name)) for name in COLUMNS]
        lines.append([row.model, row.inverter, row.group, str(row.images), *figures])
    pictures = "".join(
        f"{picture_html(group, data)}{_one_by_one(results, groups, group)}" for group, data in grids.items()
    )
    legend = "; ".join(f"{name}: {meaning.format(distances=distances)}" for name, meaning in COLUMNS.items())
    edited = edit_lines(results)
    if edited:
        pictures += f"<h2>Edits, compared with true ones</h2>{Table(EDIT_HEAD, edited).html()}"
        pictures += "".join(picture_html(name, data) for name, data in edits.items())
    legend = f"<p>{html.escape(legend)}.</p>"
    return document(title, Table(head, lines).html(), legend, pictures)


def _one_by_one(results: Sequence[Result], groups: Groups, group: str) -> str:
    """Return a table of the PSNR of every image by every method."""
    possible = [result for result in results if result.row.group == group and not result.row.note]
    head = ("image", *(f"{result.row.model}, {result.row.inverter}" for result in possible))
    lines = [
        [source.name, *(as_text(result.each_psnr[i]) for result in possible)]
        for i, source in enumerate(groups[group].sources)
    ]
    return f"<details><summary>PSNR of every image, dB</summary>{Table(head, lines).html()}</details>"
