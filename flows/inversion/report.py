"""Files of a comparison: tables, a grid of pictures per group, a page, and records."""

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from flows.display.drawing import Sheet, save_images
from flows.display.formats import VECTORS, Format, write_tables
from flows.display.notebook import ShownInNotebooks
from flows.display.page import as_text, document, picture_html, save_sheet
from flows.display.table import Table
from flows.inversion.comparison import Groups, Result
from flows.inversion.facts import ModelFacts, compared_on, models_table
from flows.inversion.pairs import pair_name, safe_name
from flows.inversion.summary import (
    Distances,
    edits_table,
    groups_table,
    noted_figures,
    overview,
    summary_table,
)
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


@dataclass(frozen=True)
class Comparison(ShownInNotebooks):
    """Results of a comparison with what their report needs.

    Attributes:
        results: Results of `compare`.
        groups: Groups that were compared, by name.
        distances: Names of the distances.
        bits: Bits/dim by model and group; empty if they were not computed.
        pictures: Whether to write each reconstruction at its size to pictures/, too.
        models: Facts of the models by name.
    """

    results: list[Result]
    groups: Groups
    distances: Distances
    bits: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: bool = False
    models: Mapping[str, ModelFacts] = field(default_factory=dict)

    def save(
        self, out: Path, title: str = "Comparison of inverters", formats: Sequence[Format] = ()
    ) -> list[str]:
        """Write table.csv, summary.md, overview.png, grid-*.png, edit-*.png and index.html.

        Args:
            out: Output folder.
            title: Title of the page.
            formats: Additional formats; see `flows.display.formats.Formats`.
        """
        more = write_comparison(out, title, self, formats)
        there = [name for name in ("overview.png", "records") if (out / name).exists()]
        return ["index.html", "summary.md", "table.csv", f"{len(self.groups)} grids", *there, *more]

    def tables(self) -> list[Table]:
        """Some figures of each pair, or the reason why it has none, and the facts of the models."""
        return [table for table in (groups_table(self.results), self.models_table()) if table]

    def paper_tables(self) -> dict[str, Table]:
        """Tables by name: summary, groups, edits and models, those that have rows."""
        found = {
            "summary": summary_table(self.results, self.groups, self.distances),
            "groups": groups_table(self.results, in_words=True),
            "edits": edits_table(self.results),
            "models": self.models_table(),
        }
        return {name: table for name, table in found.items() if table}

    def models_table(self) -> Table:
        """Facts of the models."""
        return models_table(self.models, [result.row for result in self.results])

    @property
    def notes(self) -> list[str]:
        """No sentences, because those on pairs are notes of the tables."""
        return []

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
            "models": {
                name: {
                    **facts.as_dict(),
                    "compared_on": compared_on(name, [result.row for result in self.results]),
                }
                for name, facts in self.models.items()
            },
            "bits_per_dim": self.bits,
        }


def write_comparison(
    out: Path, title: str, comparison: Comparison, formats: Sequence[Format] = ()
) -> list[str]:
    """Write the files of a comparison (`Comparison.save`); returns phrases on those of additional formats."""
    results, groups = comparison.results, comparison.groups
    tables = comparison.paper_tables()
    latex = write_tables(out, tables, formats)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(results[0].row.as_dict()))
    writer.writeheader()
    writer.writerows(result.row.as_dict() for result in results)
    write_text(out / "table.csv", text.getvalue())
    short = [tables[name].markdown() for name in ("summary", "edits", "models") if name in tables]
    write_text(out / "summary.md", "\n".join(short))
    remove_old(out)
    if rows := overview(results, groups):
        save_sheet(Sheet(rows), out / "overview.png", formats)
    grids = {
        group: save_sheet(
            Sheet(grid_rows(groups, results, group)), out / f"grid-{safe_name(group)}.png", formats
        )
        for group in groups
    }
    edits = {
        f"edit: {name}": save_sheet(Sheet(rows), out / f"edit-{safe_name(name)}.png", formats)
        for name, rows in edit_rows(groups, results).items()
    }
    write_text(out / "index.html", page(title, comparison, grids, edits))
    if comparison.pictures:
        for result in results:
            names = [Path(source.name).stem for source in groups[result.row.group].sources]
            folder = out / "pictures" / pair_name(result.row)
            save_images(folder, names[: len(result.reconstruction)], result.reconstruction)
    drawn = len(grids) + len(edits) + bool(rows)
    return [*latex, *(f"{drawn} figures as .{form}" for form in VECTORS if form in formats)]


def remove_old(out: Path) -> None:
    """Remove the pictures that an earlier comparison in this folder left."""
    for stem in ("overview", "grid-*", "edit-*"):
        for form in ("png", *VECTORS):
            for old in out.glob(f"{stem}.{form}"):
                old.unlink()


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
    lines = [
        [row.model, row.inverter, row.group, str(row.images), *noted_figures(row, list(COLUMNS))]
        for row in (result.row for result in results)
    ]
    pictures = "".join(
        f"{picture_html(group, data)}{_one_by_one(results, groups, group)}" for group, data in grids.items()
    )
    legend = "; ".join(f"{name}: {meaning.format(distances=distances)}" for name, meaning in COLUMNS.items())
    if edited := edits_table(results):
        pictures += f"<h2>Edits, compared with true ones</h2>{edited.html()}"
        pictures += "".join(picture_html(name, data) for name, data in edits.items())
    legend = f"<p>{html.escape(legend)}.</p>"
    facts = comparison.models_table()
    models = f"<h2>Models</h2>{facts.html()}" if facts else ""
    return document(title, Table(head, lines).html(), legend, models, pictures)


def _one_by_one(results: Sequence[Result], groups: Groups, group: str) -> str:
    """Return a table of the PSNR of every image by every method."""
    possible = [result for result in results if result.row.group == group and not result.row.note]
    head = ("image", *(f"{result.row.model}, {result.row.inverter}" for result in possible))
    lines = [
        [source.name, *(as_text(result.each_psnr[i]) for result in possible)]
        for i, source in enumerate(groups[group].sources)
    ]
    return f"<details><summary>PSNR of every image, dB</summary>{Table(head, lines).html()}</details>"
