"""flows atlas: the standard set of steering and dissection of one model, in one report."""

import base64
import html
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from jsonargparse.typing import NonNegativeInt, PositiveInt

from flows import __version__
from flows.commands.common import write_json
from flows.commands.dissect import clean_images, dissect
from flows.commands.omissions import omissions
from flows.commands.steer.find import find
from flows.commands.steer.score import score
from flows.dissection.instrument import default_layers
from flows.errors import UserError
from flows.files import write_atomically
from flows.jobs import run_once
from flows.models.base import LatentModel
from flows.opening import load_predictor, load_segmenter, open_model
from flows.page import document, picture
from flows.semantics.base import Segmenter

SCORES = [
    "daylight",
    "lamp_on",
    "wood",
    "wall_hue cos",
    "warmth",
    "ageing",
    "window",
    "banner",
    "category: church",
]
"""Steered unless others are named, of those that the predictor tells."""


def atlas(
    checkpoint: str,
    predictor: str | None = None,
    segmenter: str | None = None,
    scores: list[str] | None = None,
    artefact: str | None = "banner",
    n: PositiveInt = 2000,
    seed: NonNegativeInt = 0,
    out: Path = Path("atlas"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Find directions, score them, dissect units, and look for omissions; one page leads to all.

    A part that was done in this folder with the same inputs is not done again.

    Args:
        checkpoint: folder or hub repository of the model.
        predictor: checkpoint of an attribute predictor; None takes the shipped one for its images.
        segmenter: checkpoint of a segmenter; None takes the shipped one for its images.
        scores: what directions are found for; None takes a few that the predictor tells.
        artefact: class whose units are switched off, see `dissect`; left out where the segmenter has none of
            that name, or what it takes is missing.
        n: samples, for each part.
        seed: of samples.
        out: folder for index.html and a folder for each part.
        json: file for what was done.
        device: torch device.
    """
    model = open_model(checkpoint, device)
    judge, finder = load_predictor(predictor, model), load_segmenter(segmenter, model)
    told = [each.name for each in judge.scores]
    wanted = scores or [name for name in SCORES if name in told] or told[:8]
    encodes = model.check_space(model.search_space).encodes
    source: Literal["samples", "images"] = "images" if encodes else "samples"
    taken = artefact if artefact and can_take_out(model, finder, artefact) else None
    shared = {"flows": __version__, "model": model.fingerprint(), "n": n, "seed": seed}
    directions = out / "steering" / "directions.safetensors"

    def steer() -> None:
        find(checkpoint, wanted, predictor=predictor, source=source, n=n, seed=seed, output=directions,
             device=device)  # fmt: skip
        score(checkpoint, directions, predictor=predictor, n=min(n, 300), test=200 if encodes else 0,
              seed=seed + 1, out=out / "steering", device=device)  # fmt: skip

    def look_inside() -> None:
        dissect(checkpoint, segmenter=segmenter, source=source, n=n, artefact=taken, seed=seed,
                out=out / "dissection", device=device)  # fmt: skip

    def look_for_omissions() -> None:
        omissions(checkpoint, segmenter, n, seed=seed, out=out / "omissions", device=device)

    steering_inputs = {**shared, "predictor": judge.fingerprint(), "scores": wanted, "source": source}
    seeing_inputs = {**shared, "segmenter": finder.fingerprint(), "source": source}
    parts: dict[str, tuple[dict[str, object], Callable[[], None]]] = {
        "steering": (steering_inputs, steer),
        "dissection": ({**seeing_inputs, "artefact": taken}, look_inside),
        "omissions": (seeing_inputs, look_for_omissions),
    }
    if not default_layers(model, model.search_space):
        print(f"nothing to dissect: no layer of {type(model).__name__} lies over the image")
        del parts["dissection"]
    done = {name: run_once(out / name, inputs, job) for name, (inputs, job) in parts.items()}
    page = front_page(f"Atlas of {Path(checkpoint).name}", out, list(parts))
    write_atomically(out / "index.html", lambda path: path.write_text(page))
    for name, anew in done.items():
        print(f"{name}: {'done' if anew else 'was there already'}")
    print(f"written to {out}: index.html")
    write_json(json, {"checkpoint": checkpoint, "done": done})


def can_take_out(model: LatentModel, finder: Segmenter, label: str) -> bool:
    """Whether an artefact can be taken out and the result measured; a line says why not."""
    if label not in finder.classes:
        return False
    try:
        clean_images(model, finder, label)
    except UserError as error:
        print(f"no artefact is taken out: {error}")
        return False
    return True


def front_page(title: str, out: Path, parts: list[str]) -> str:
    """Every part's pictures, with a link to its own page."""
    pieces = []
    for name in parts:
        pieces.append(f'<h1><a href="{html.escape(name)}/index.html">{html.escape(name)}</a></h1>')
        for path in sorted((out / name).glob("*.png")):
            pieces.append(picture(path.stem, base64.b64encode(path.read_bytes()).decode()))
    return document(title, *pieces)
