"""flows compare: inverters on models, on the same images and the same clock."""

import base64
import csv
import html
import io
import math
from pathlib import Path

import torch
from jsonargparse.typing import PositiveInt
from PIL import Image, ImageDraw, ImageFont
from rich import box
from rich.console import Console
from rich.table import Table
from torch import Tensor

from flows import images as pixels
from flows.commands.common import data_of, load, read_pictures, write_json
from flows.data.foreign import foreign_images
from flows.files import write_atomically
from flows.inversion.base import Inverter
from flows.inversion.compare import Picture, Row, grid_rows, likelihood_of
from flows.inversion.compare import compare as run
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact
from flows.inversion.hybrid import Domain, Hybrid
from flows.inversion.optimise import Algorithm, Optimise
from flows.inversion.tune import Tune
from flows.models.base import LatentModel

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}
COLUMNS = (
    "psnr", "worst_psnr", "ssim", "bit_exact", "seconds", "steps", "starts", "spread", "apart", "failed",
    "typicality",
)  # fmt: skip


def compare(
    models: list[str],
    inverters: list[str],
    images: list[str],
    out: Path = Path("comparison"),
    steps: PositiveInt = 300,
    starts: PositiveInt = 8,
    lr: float = 0.1,
    noise: bool = False,
    seed: int = 0,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Invert images by several methods, and report: CSV, JSON, a grid of pictures, and a page.

    Models: folders or hub repositories of checkpoints, of one image shape.

    Inverters: `exact`, `encoder` (into w where the model has it), and `optimise:SPACE` or
    `optimise:SPACE:lbfgs` with SPACE one of z, w, w+; `hybrid` (from the encoder's code on), `in-domain` and
    `in-domain:likelihood` (kept in the domain), `tune` (the generator too). Pairs that are impossible are
    listed with the reason.

    Images: `test:N`, `generated:N` (by each model; do they come back?), `upside-down:N`, `foreign` (a cat, a
    person, …, text, noise), `user:FOLDER` (cropped in the middle and resized).

    Args:
        models: see above.
        inverters: see above.
        images: see above.
        out: folder for table.csv, table.json, grid-*.png and index.html.
        steps: of optimisation, for every start.
        starts: of optimisation: the middle of the space, then random codes.
        lr: of optimisation.
        noise: optimise the noise inputs too.
        seed: of everything random.
        json: file for the table, beside the one in `out`.
        device: torch device.
    """
    loaded = {Path(name).name: load(name, device).eval() for name in models}
    if len(loaded) != len(models):
        raise ValueError("--models: two have the same name")
    shapes = {name: model.image_shape for name, model in loaded.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"--models: expected one image shape, got {shapes}")
    chosen = {name: make_inverter(name, steps, starts, lr, noise) for name in inverters}
    first = next(iter(loaded.values()))
    groups: dict[str, Tensor] = {}
    for text in images:
        groups |= read_group(text, first, loaded)
    rows, pictures = run(loaded, chosen, groups, seed)
    bits = {
        name: {group: likelihood_of(model, of_group) for group, of_group in groups.items()}
        for name, model in loaded.items()
    }
    write_report(out, rows, pictures, groups)
    result = {"rows": [row.as_dict() for row in rows], "bits_per_dim": bits}
    for path in (out / "table.json", json):
        write_json(path, result)
    show(rows)
    print(f"written to {out}: index.html, table.csv, table.json, {len(groups)} grids")


def make_inverter(text: str, steps: int, starts: int, lr: float, noise: bool) -> Inverter:
    """The inverter that `exact`, `encoder`, `encoder:w` or `optimise:w:lbfgs` names.

    Raises:
        ValueError: there is none of that name.
    """
    name, *options = text.split(":")
    if name == "exact" and not options:
        return Exact()
    if name == "encoder" and len(options) <= 1:
        return Encoder(*options)
    if name == "optimise" and 1 <= len(options) <= 2 and options[1:] in ([], ["adam"], ["lbfgs"]):
        algorithm: Algorithm = "lbfgs" if options[1:] == ["lbfgs"] else "adam"
        return Optimise(options[0], steps, lr, algorithm, starts, noise=noise)
    domains: dict[tuple[str, ...], Domain] = {
        ("hybrid",): "none", ("in-domain",): "encoder", ("in-domain", "likelihood"): "likelihood",
    }  # fmt: skip
    if (name, *options) in domains:
        return Hybrid(domain=domains[name, *options], steps=min(steps, 100))
    if name == "tune" and not options:
        return Tune(Optimise("w", steps, lr, noise=noise), steps)
    raise ValueError(
        f"--inverters: there is no {text!r}; expected exact, encoder, encoder:SPACE, optimise:SPACE, "
        "optimise:SPACE:lbfgs, hybrid, in-domain, in-domain:likelihood or tune"
    )


def read_group(text: str, model: LatentModel, models: dict[str, LatentModel]) -> dict[str, Tensor]:
    """The images that one word of the command line names.

    Raises:
        ValueError: no such group, or a folder without pictures.
    """
    name, _, rest = text.partition(":")
    if name == "foreign":
        suite = foreign_images(model.image_shape, model.bins)
        return {"foreign": torch.cat([pictures[:1] for pictures in suite.values()])}
    if name == "user":
        folder = Path(rest).expanduser()  # no shell does it within a word
        paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
        if not paths:
            raise ValueError(f"--images {text}: no pictures ({', '.join(sorted(SUFFIXES))}) in {rest}")
        return {"user": read_pictures(paths, model.image_shape, resize=True)}
    if name in ("test", "upside-down", "generated") and rest.isdigit() and int(rest) > 0:
        if name == "generated":
            return {f"generated by {key}": _generated(each, int(rest)) for key, each in models.items()}
        found = data_of(model, None).split("test").first(int(rest)).images
        return {name: found if name == "test" else found.flip(-2)}
    raise ValueError(
        f"--images: there is no {text!r}; expected test:N, generated:N, upside-down:N, foreign or user:FOLDER"
    )


@torch.no_grad()
def _generated(model: LatentModel, n: int) -> Tensor:
    code = model.sample_codes(n, generator=torch.Generator().manual_seed(7))
    return pixels.to_bytes(model.decode(code), model.bins).cpu()


# Report -------------------------------------------------------------------------------------------


def show(rows: list[Row]) -> None:
    """The table on the terminal."""
    table = Table(padding=(0, 1, 0, 0), box=box.SIMPLE_HEAD)
    for column in ("model", "inverter", "images", *COLUMNS[:5]):
        words = column in ("model", "inverter", "images")
        table.add_column(column, justify="left" if words else "right", no_wrap=True)
    for row in rows:
        if row.note:
            continue
        table.add_row(row.model, row.inverter, row.group, *(_text(getattr(row, n)) for n in COLUMNS[:5]))
    console = Console()
    console.width = max(console.width, 120)
    console.print(table)
    for note in dict.fromkeys(f"{row.model}, {row.inverter}: {row.note}" for row in rows if row.note):
        print(f"impossible: {note}")


def _text(value: float | int) -> str:
    if isinstance(value, float):
        return "–" if math.isnan(value) else "∞" if math.isinf(value) else f"{value:.4g}"
    return str(value)


def write_report(
    out: Path,
    rows: list[Row],
    pictures: list[Picture],
    groups: dict[str, Tensor],
) -> None:
    """table.csv, a grid for each group, and index.html with all of it."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0].as_dict()))
    writer.writeheader()
    writer.writerows(row.as_dict() for row in rows)
    write_atomically(out / "table.csv", lambda path: path.write_text(text.getvalue()))
    grids = {}
    for group in groups:
        name = f"grid-{group.replace(' ', '-')}.png"
        grids[group] = save_grid(draw_grid(grid_rows(groups, pictures, group)), out / name)
    write_atomically(out / "index.html", lambda path: path.write_text(page(rows, grids)))


def save_grid(sheet: Image.Image, path: Path) -> str:
    """Write a PNG, and return it in base64."""
    content = io.BytesIO()
    sheet.save(content, "png")
    write_atomically(path, lambda place: place.write_bytes(content.getvalue()))
    return base64.b64encode(content.getvalue()).decode()


def draw_grid(rows: list[tuple[str, Tensor]], columns: int = 16, side: int = 64) -> Image.Image:
    """Rows of pictures with their names at the left."""
    font, label = ImageFont.load_default(13), 260
    columns = min(columns, len(rows[0][1]))
    sheet = Image.new("RGB", (label + columns * (side + 2), len(rows) * (side + 2)), "white")
    draw = ImageDraw.Draw(sheet)
    for y, (name, pictures) in enumerate(rows):
        draw.text((4, y * (side + 2) + side // 2 - 8), name, "black", font)
        for x, picture in enumerate(pictures[:columns]):
            small = pixels.to_pillow(picture).convert("RGB").resize((side, side), Image.Resampling.NEAREST)
            sheet.paste(small, (label + x * (side + 2), y * (side + 2)))
    return sheet


def page(rows: list[Row], grids: dict[str, str]) -> str:
    """A page that needs nothing else."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("model", "inverter", "images", "n", *COLUMNS))
    lines = []
    for row in rows:
        cells = [row.model, row.inverter, row.group, str(row.images)]
        if row.note:
            rest = f'<td colspan="{len(COLUMNS)}"><i>impossible: {html.escape(row.note)}</i></td>'
        else:
            rest = "".join(f"<td class=n>{_text(getattr(row, name))}</td>" for name in COLUMNS)
        lines.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + rest + "</tr>")
    pictures = "".join(
        f'<h2>{html.escape(group)}</h2><img alt="{html.escape(group)}" src="data:image/png;base64,{data}">'
        for group, data in grids.items()
    )
    return (
        "<!doctype html><meta charset=utf-8><title>flows compare</title><style>body{font:14px system-ui;"
        "margin:2em}table{border-collapse:collapse}td,th{padding:.2em .6em;border-bottom:1px solid #ddd;"
        "text-align:left}.n{text-align:right}img{max-width:100%;image-rendering:pixelated}</style>"
        f"<h1>Inversion, compared</h1><table><tr>{head}</tr>{''.join(lines)}</table>"
        "<p>psnr: median, dB; seconds: per image, all starts; spread: (worst − best)/best loss over the "
        "starts; apart: distance of two starts' codes; typicality: |z|/√D − 1.</p>"
        f"{pictures}\n"
    )
