"""What `compare` leaves: a table, a grid of pictures for every group, a page with all of it, and records."""

import csv
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch import Tensor

from flows.files import write_atomically
from flows.inversion.compare import Groups, Result
from flows.inversion.records import save_record
from flows.inversion.summary import overview, summary
from flows.models.base import LatentModel
from flows.page import as_text, cells, document, draw_rows, numbers, picture, save_picture, table

COLUMNS = {
    "psnr": "median, dB",
    "worst_psnr": "the worst image, dB",
    "ssim": "structural similarity, mean",
    "perceptual": "distance by {network}, mean",
    "bit_exact": "share of images returned with every byte",
    "seconds": "per image, all starts",
    "steps": "of optimisation, per image and start",
    "starts": "the middle of the space first, then random codes",
    "spread": "(worst − best)/best loss over the starts, median",
    "apart": "distance between two starts' codes, relative to their length",
    "failed": "share of starts that diverged",
    "typicality": "| |z|/√D − 1 |, mean; 0 is typical",
    "log_prob": "log-density of the codes, nats per dimension",
    "undone": "dB left after invert, edit, invert, undo",
    "code_error": "distance to the code that drew the image, relative to its distance from the middle",
}


def write_comparison(
    out: Path, results: Sequence[Result], groups: Groups, models: Mapping[str, LatentModel], network: str
) -> None:
    """table.csv, summary.md, overview.png, records/*.safetensors, a grid for each group, and index.html."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(results[0].row.as_dict()))
    writer.writeheader()
    writer.writerows(result.row.as_dict() for result in results)
    write_atomically(out / "table.csv", lambda path: path.write_text(text.getvalue()))
    for old in (*out.glob("records/*.safetensors"), *out.glob("grid-*.png")):
        old.unlink()  # of an earlier comparison in this folder
    short = summary(results, groups, network)
    write_atomically(out / "summary.md", lambda path: path.write_text(short))
    rows = overview(results, groups)
    if rows:
        save_picture(draw_rows(rows), out / "overview.png")
    else:
        (out / "overview.png").unlink(missing_ok=True)
    for result in results:
        if result.record is not None:
            row = result.row
            name = file_name(f"{row.model}-{row.inverter}-{row.group}")
            save_record(out / "records" / f"{name}.safetensors", result.record, models[row.model])
    grids = {
        group: save_picture(
            draw_rows(grid_rows(groups, results, group)), out / f"grid-{file_name(group)}.png"
        )
        for group in groups
    }
    write_atomically(out / "index.html", lambda path: path.write_text(page(results, groups, grids, network)))


def file_name(text: str) -> str:
    """Words that are safe in the name of a file."""
    return "".join(letter if letter.isalnum() or letter in "-+." else "-" for letter in text)


# Grid ---------------------------------------------------------------------------------------------


def grid_rows(groups: Groups, results: Sequence[Result], group: str) -> list[tuple[str, Tensor]]:
    """Labelled rows for one group: the input, then each reconstruction with its error map."""
    images = groups[group].images
    rows = [("input", images)]
    for result in results:
        if result.row.group == group and not result.row.note:
            name, back = f"{result.row.model}, {result.row.inverter}", result.reconstruction
            rows += [(name, back), ("error, 4 times", error_map(images, back))]
    return rows


def error_map(images: Tensor, reconstruction: Tensor) -> Tensor:
    """Largest difference of the channels, uint8 (n, C, H, W), four times as bright as it is."""
    difference = (images.int() - reconstruction.int()).abs().amax(1, keepdim=True)
    return (4 * difference).clamp(max=255).byte().expand_as(images)


# Page ---------------------------------------------------------------------------------------------


def page(results: Sequence[Result], groups: Groups, grids: Mapping[str, str], network: str) -> str:
    """A page that needs nothing else."""
    head = ("model", "inverter", "images", "n", *COLUMNS)
    lines = []
    for result in results:
        row = result.row
        names = cells([row.model, row.inverter, row.group, str(row.images)])
        if row.note:
            rest = f"<td colspan={len(COLUMNS)}><i>{html.escape(row.reason)}</i></td>"
        else:
            rest = numbers([as_text(getattr(row, name)) for name in COLUMNS])
        lines.append(names + rest)
    pictures = "".join(
        f"{picture(group, data)}{_one_by_one(results, groups, group)}" for group, data in grids.items()
    )
    legend = "; ".join(f"{name}: {told.format(network=network)}" for name, told in COLUMNS.items())
    return document("Inversion, compared", table(head, lines), f"<p>{html.escape(legend)}.</p>", pictures)


def _one_by_one(results: Sequence[Result], groups: Groups, group: str) -> str:
    """A table of every image's PSNR by every method."""
    possible = [each for each in results if each.row.group == group and not each.row.note]
    head = ("image", *(f"{each.row.model}, {each.row.inverter}" for each in possible))
    lines = [
        cells([source.name]) + numbers([as_text(each.each_psnr[i]) for each in possible])
        for i, source in enumerate(groups[group].sources)
    ]
    return f"<details><summary>PSNR of every image, dB</summary>{table(head, lines)}</details>"
