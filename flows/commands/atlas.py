"""`flows atlas`: standard steering, dissection and omissions of one model, in one report."""

import base64
import html
from collections.abc import Callable
from pathlib import Path
from typing import Literal

from flows import __version__
from flows.bounds import PositiveInt, Seed
from flows.commands.common import check_outputs, write_json
from flows.commands.dissect import clean_images, dissect
from flows.commands.omissions import omissions
from flows.commands.steer.find import find
from flows.commands.steer.score import score
from flows.dissection.artefacts import TooFew
from flows.dissection.probe import default_layers
from flows.errors import DataMissing
from flows.files import write_atomically
from flows.jobs import run_once
from flows.models.base import LatentModel
from flows.opening import data_known, load_predictor, load_segmenter, open_model
from flows.page import document, picture_html
from flows.semantics.base import Segmenter
from flows.steering.base import DIRECTIONS_FILE

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
"""Scores that are steered by default, if the predictor has them."""


def atlas(
    checkpoint: str,
    predictor: str | None = None,
    segmenter: str | None = None,
    scores: list[str] | None = None,
    artefact: str | None = "banner",
    n: PositiveInt = 2000,
    seed: Seed = 0,
    out: Path = Path("atlas"),
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Find and score directions, dissect units and find omissions, in one report.

    Parts that were already run in this folder with the same inputs are skipped.

    Args:
        checkpoint: Folder or hub repository of the model.
        predictor: Checkpoint of an attribute predictor; None takes the included one for the model's images.
        segmenter: Checkpoint of a segmenter; None takes the included one for the model's images.
        scores: Scores to find directions for; None takes a standard selection of the predictor's scores.
        artefact: Class whose units are ablated, as by `flows dissect --artefact`; skipped if the segmenter
            does not have the class, or if data or packages for the measurement are missing.
        n: Number of codes in each part; directions are scored on at most 300 codes.
        seed: Seed of the samples.
        out: Output folder, with index.html and one folder for each part.
        json: File for a list of the parts, and whether each was run or skipped.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    model = open_model(checkpoint, device)
    predictor_model, segmenter_model = load_predictor(predictor, model), load_segmenter(segmenter, model)
    available = [score.name for score in predictor_model.scores]
    wanted = scores or [name for name in SCORES if name in available] or available[:8]
    encodes = model.check_space(model.search_space).encodes
    source: Literal["samples", "images"] = "images" if encodes else "samples"
    ablated = artefact if artefact and can_remove(model, segmenter_model, artefact) else None
    shared = {"flows": __version__, "model": model.fingerprint(), "n": n, "seed": seed}
    directions = out / "steering" / DIRECTIONS_FILE

    def steer() -> None:
        find(
            checkpoint,
            wanted,
            predictor=predictor,
            source=source,
            n=n,
            seed=seed,
            output=directions,
            device=device,
        )
        score(
            checkpoint,
            directions,
            predictor=predictor,
            n=min(n, 300),
            test=200 if encodes else 0,
            seed=seed + 1,
            out=out / "steering",
            device=device,
        )

    def dissect_units() -> None:
        dissect(
            checkpoint,
            segmenter=segmenter,
            source=source,
            n=n,
            artefact=ablated,
            seed=seed,
            out=out / "dissection",
            device=device,
        )

    def find_omissions() -> None:
        omissions(checkpoint, segmenter, n, seed=seed, out=out / "omissions", device=device)

    steering_inputs = {
        **shared,
        "predictor": predictor_model.fingerprint(),
        "scores": wanted,
        "source": source,
    }
    segmenter_inputs = {**shared, "segmenter": segmenter_model.fingerprint(), "source": source}
    parts: dict[str, tuple[dict[str, object], Callable[[], None]]] = {
        "steering": (steering_inputs, steer),
        "dissection": ({**segmenter_inputs, "artefact": ablated}, dissect_units),
        "omissions": (segmenter_inputs, find_omissions),
    }
    if not default_layers(model, model.search_space):
        print(f"dissection: skipped, {type(model).__name__} has no spatial layer")
        del parts["dissection"]
    done = {name: run_once(out / name, inputs, job) for name, (inputs, job) in parts.items()}
    page = front_page(f"Atlas of {Path(checkpoint).name}", out, list(parts))
    write_atomically(out / "index.html", lambda path: path.write_text(page))
    for name, ran in done.items():
        print(f"{name}: {'done' if ran else 'skipped, was run before with the same inputs'}")
    print(f"written to {out}: index.html")
    write_json(json, {"checkpoint": checkpoint, "done": done})


def can_remove(model: LatentModel, segmenter: Segmenter, label: str) -> bool:
    """Whether an artefact can be ablated and the effect measured; prints the reason if data are missing."""
    if label not in segmenter.classes:
        return False
    if not data_known(model):
        print("no artefact is ablated: the data set of this model is unknown")
        return False
    try:
        clean_images(model, segmenter, label)
    except (DataMissing, TooFew) as error:
        print(f"no artefact is ablated: {error}")
        return False
    return True


def front_page(title: str, out: Path, parts: list[str]) -> str:
    """HTML page with the pictures of each part below a link to its own page."""
    pieces = []
    for name in parts:
        pieces.append(f'<h1><a href="{html.escape(name)}/index.html">{html.escape(name)}</a></h1>')
        for path in sorted((out / name).glob("*.png")):
            pieces.append(picture_html(path.stem, base64.b64encode(path.read_bytes()).decode()))
    return document(title, *pieces)
