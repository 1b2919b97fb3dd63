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
from flows.commands.steer.apply import apply
from flows.commands.steer.find import find
from flows.commands.steer.score import score
from flows.dissection.artefacts import TooFew
from flows.dissection.probe import default_layers, outer_layers
from flows.errors import DataMissing
from flows.files import write_atomically
from flows.jobs import run_once
from flows.models.base import LatentModel
from flows.opening import (
    SemanticKind,
    data_known,
    data_of,
    find_bundled,
    load_predictor,
    load_segmenter,
    open_model,
)
from flows.page import document, picture_html
from flows.semantics.base import Segmenter, scores_of
from flows.semantics.predictor import AttributePredictor
from flows.steering.base import DIRECTIONS_FILE
from flows.steering.pca import PrincipalComponents

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

    Parts that were already run in this folder with the same inputs are skipped. Without a predictor,
    directions are found from the classes of encoded images, or as principal components, and are drawn without
    measuring them; without a segmenter, dissection and omissions are left out.

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
    predictor_model = (
        load_predictor(predictor, model) if predictor or find_bundled("predictor", model) else None
    )
    segmenter_model = (
        load_segmenter(segmenter, model) if segmenter or find_bundled("segmenter", model) else None
    )
    encodes = model.check_space(model.search_space).encodes
    source: Literal["samples", "images"] = "images" if encodes else "samples"
    shared = {"flows": __version__, "model": model.fingerprint(), "n": n, "seed": seed}
    directions = out / "steering" / DIRECTIONS_FILE
    wanted = wanted_scores(model, predictor_model, scores)
    unsupervised = components_of(model)
    parts: dict[str, tuple[dict[str, object], Callable[[], None]]] = {}

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

    def steer_unscored() -> None:
        if wanted:
            find(checkpoint, wanted, source="images", n=n, seed=seed, output=directions, device=device)
        else:
            assert unsupervised is not None
            find(checkpoint, method=unsupervised, n=n, seed=seed, output=directions, device=device)
        apply(checkpoint, directions, n=2, seed=seed + 1, output=out / "steering/strips.png", device=device)

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

    inputs = {**shared, "scores": wanted, "source": source}
    if predictor_model is None:
        print(
            f"steering: effects are not measured, because there is no predictor. {way_to('predictor', model)}"
        )
        parts["steering"] = ({**inputs, "predictor": None}, steer_unscored)
    else:
        parts["steering"] = ({**inputs, "predictor": predictor_model.fingerprint()}, steer)
    if segmenter_model is None:
        print(f"dissection, omissions: skipped, because there are no masks. {way_to('segmenter', model)}")
    else:
        ablated = artefact if artefact and can_remove(model, segmenter_model, artefact) else None
        inputs = {**shared, "segmenter": segmenter_model.fingerprint(), "source": source}
        if default_layers(model, model.search_space):
            parts["dissection"] = ({**inputs, "artefact": ablated}, dissect_units)
        else:
            print(f"dissection: skipped, {type(model).__name__} has no spatial layer")
        parts["omissions"] = (inputs, find_omissions)
    done = {name: run_once(out / name, inputs, job) for name, (inputs, job) in parts.items()}
    page = front_page(f"Atlas of {Path(checkpoint).name}", out, list(parts))
    write_atomically(out / "index.html", lambda path: path.write_text(page))
    for name, ran in done.items():
        print(f"{name}: {'done' if ran else 'skipped, was run before with the same inputs'}")
    print(f"written to {out}: index.html")
    write_json(json, {"checkpoint": checkpoint, "done": done})


def components_of(model: LatentModel) -> PrincipalComponents | None:
    """Method that finds directions without scores: components of the codes, or of a layer if these are white.

    None if the codes are white and the model has no layers.
    """
    if model.check_space(model.search_space).prior is None:
        return PrincipalComponents(8)
    layers = outer_layers(model)
    return PrincipalComponents(8, layers[len(layers) // 2], n=1000) if layers else None


def wanted_scores(
    model: LatentModel, predictor: AttributePredictor | None, scores: list[str] | None
) -> list[str]:
    """Scores to find directions for: the given ones, else a selection of the predictor's.

    Without a predictor, those of the data set's classes and attributes, if images can be encoded; else none.
    """
    if scores:
        return scores
    if predictor is not None:
        available = [score.name for score in predictor.scores]
        return [name for name in SCORES if name in available] or available[:8]
    encodes = model.check_space(model.search_space).encodes
    if not encodes or not data_known(model):
        return []
    try:
        return [score.name for score in scores_of(data_of(model, None).all_attributes())][:8]
    except DataMissing:
        return []


def way_to(kind: SemanticKind, model: LatentModel) -> str:
    """Sentence that says how to get a predictor or segmenter for the images of a model."""
    shape = "×".join(map(str, model.image_shape))
    config = f"`train.py --config configs/scenes/{kind}.yaml --data …`"
    return f"{config} trains one for images {shape} of other data, and --{kind} takes it"


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
        title = html.escape(name)
        linked = (out / name / "index.html").is_file()
        pieces.append(f'<h1><a href="{title}/index.html">{title}</a></h1>' if linked else f"<h1>{title}</h1>")
        for path in sorted((out / name).glob("*.png")):
            pieces.append(picture_html(path.stem, base64.b64encode(path.read_bytes()).decode()))
    return document(title, *pieces)
