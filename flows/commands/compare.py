"""`flows compare`: compare inversion methods on models, with the same images and timing."""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

from flows import __version__
from flows.commands.common import Label, check_outputs, finish
from flows.commands.groups import GroupReader
from flows.data.base import ImageData
from flows.display.formats import Formats
from flows.editing.editability import Editability
from flows.errors import EXIT_BUG, UserError, interrupted
from flows.inversion.by_name import config_path, is_config
from flows.inversion.comparison import Measures, Row
from flows.inversion.comparison import compare as run
from flows.inversion.facts import NO_PARAMETERS, NOT_RECORDED, ModelFacts
from flows.inversion.pairs import Pairs
from flows.inversion.report import Comparison
from flows.inversion.search import SearchSettings
from flows.inversion.study import MeasureSettings, likelihoods, prepare
from flows.inversion.summary import Distances
from flows.models.base import LatentModel
from flows.opening import data_of, load_predictor, names_of, open_model, training_of
from flows.steering.base import DIRECTIONS_FILE, Direction, load_directions
from flows.storage.files import file_digest
from flows.storage.places import locate

UNKNOWN = {
    "perceptual": "there is no perceptual network, or every search diverged",
    "identity": "no network that recognises faces was given",
    "undone": "not measured, or a search diverged",
    **dict.fromkeys(
        ("reached", "leakage", "edited", "back", "unedited"), "no edit was compared with a true one"
    ),
    **dict.fromkeys(("psnr_low", "psnr_high", "low", "high"), "fewer than ten images have no interval"),
    "log_prob": "the model does not know the density of this space",
    "typicality": "there is no map to the prior space",
    "code_error": "no code is known for these images",
    "bits_per_dim": "the model has no likelihood, or labels are missing",
    "restart_gap": "no restart converged",
    "parameters": NO_PARAMETERS,
    **dict.fromkeys(("images_shown", "training_images", "training_hours"), NOT_RECORDED),
}
"""Reasons why a figure of the table can be unknown; a pair without figures has its reason in `note`."""


def compare(
    models: list[str],
    inverters: list[str],
    images: list[str],
    search: SearchSettings = SearchSettings(),
    measure: MeasureSettings = MeasureSettings(),
    out: Path = Path("comparison"),
    formats: Formats = Formats(),
    directions: list[str] | None = None,
    label: Label | None = None,
    pictures: bool = False,
    resume: bool = False,
    json: Path | None = None,
    data: ImageData | None = None,
    device: str | None = None,
) -> None:
    """Invert images by several methods and report reconstructions, figures and records.

    Every inverter gets the same images and the same seed. Impossible pairs of model and inverter are listed
    with the reason. A pair that fails by a bug is listed too, its traceback is printed, and the command ends
    with exit code 1 after the report is written. Each pair is written as soon as it is finished: after an
    interruption, the report has the finished pairs, and `--resume true` continues with the others.

    Args:
        models: Folders or names of models with the same image shape and number of grey levels.
        inverters: Inverters: short names, names of classes whose arguments have defaults, or YAML files with
            class_path and init_args, such as those in configs/inversion. `exact`: the exact inverse.
            `encoder` or `encoder:SPACE`: the encoder, by default into w if the model has it. `exact-z`: the
            encoder's w, mapped exactly to z. `optimise`, `optimise:SPACE` or `optimise:SPACE:lbfgs`:
            optimisation of a code in z, w or w+, by Adam or L-BFGS. `hybrid`: optimisation that starts from
            the encoder's code. `in-domain` or `in-domain:likelihood`: `hybrid` with a penalty that keeps the
            code in the model's domain. `layer` or `layer:LAYER`: optimisation of a layer's activations as
            well. `tune`: optimisation of the generator's weights as well, with locality regularisation;
            `tune:no-locality` without.
        images: Groups of images. `test:N`: test images of the first model with a known data set.
            `upside-down:N`, `rotated:N` (by 90°), `flipped:N` (left to right): transformed test images.
            `generated:N`: samples of each model, for that model only. `ood`: out-of-distribution images (a
            cat, a person, …, text, noise). `user:FOLDER`: your own pictures, centre-cropped and resized.
        out: Output folder: index.html, summary.md, overview.png, table.csv, table.json, grid-*.png, and
            records for `flows render`, `decode` and `steer apply`, and the finished pairs.
        formats: Additional formats of tables and figures.
        search: Settings of the searches of inverters by short names.
        measure: Settings of the measures.
        directions: Names of directions in the models' directions.safetensors. Test images are edited along
            them and compared with true edits, if their data set can render them again with another factor;
            eight edited images per direction are inverted again and moved back.
        label: Class of the images of `user` and `ood`, by number or name, for class-conditional models.
        pictures: Whether to write each reconstruction at the model's size, in the folder pictures/.
        resume: Whether to take pairs that were finished in this folder with the same settings, models and
            images; otherwise they are removed.
        json: Additional file for the contents of table.json.
        data: Data set of the test images; None takes the one that the model was trained on.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    checkpoints = names_of(models, "--models")
    loaded = {name: open_model(path, device).eval() for name, path in checkpoints.items()}
    facts = facts_of(loaded, checkpoints)
    prepared = prepare(loaded, inverters, search, measure)
    editing = None if directions is None else read_editing(directions, loaded, checkpoints, data)
    measures = replace(prepared.measures, editing=editing)
    groups = GroupReader(loaded, label, data).read_all(images)
    store = Pairs(out, settings_of(search, measure, measures, prepared.distances, inverters))
    if not resume:
        store.clear()
    found = Comparison([], groups, prepared.distances, pictures=pictures, models=facts)
    try:
        run(loaded, prepared.inverters, groups, measure.seed, measures, store, found.results)
    except KeyboardInterrupt:
        end_early(found, out, formats, json)
    check_possible([result.row for result in found.results])
    store.keep_only(found.results)
    whole = replace(found, bits=likelihoods(loaded, groups))
    finish(whole, out, "table.json", "Comparison of inverters", {}, json, UNKNOWN, formats)
    if bugs := sum(result.bug for result in found.results):
        print(f"pairs that failed by a bug, with the tracebacks above: {bugs}", file=sys.stderr)
        raise SystemExit(EXIT_BUG)


def facts_of(models: dict[str, LatentModel], checkpoints: dict[str, str]) -> dict[str, ModelFacts]:
    """Sizes and trainings of the models, as far as their checkpoints record them."""
    return {
        name: ModelFacts.of(model, training_of(checkpoints[name], model)) for name, model in models.items()
    }


def settings_of(
    search: SearchSettings,
    measure: MeasureSettings,
    measures: Measures,
    distances: Distances,
    inverters: Sequence[str],
) -> dict[str, Any]:
    """Plain values that determine the results of pairs, besides models, images and names."""
    editing, identity = measures.editing, measures.identity
    files = {text: file_digest(config_path(text)) for text in inverters if is_config(text)}
    return {
        "steps": search.steps,
        "starts": search.starts,
        "seconds": search.seconds,
        "lr": search.lr,
        "noise": search.noise,
        "seed": measure.seed,
        "perceptual": [distances.measured, search.perceptual_weight],
        "identity": None if identity is None else identity.name,
        "edits": measures.edits,
        "directions": digest_of(editing) if isinstance(editing, Editability) else [],
        **({"files": files} if files else {}),
        "flows": __version__,
    }


def end_early(found: Comparison, out: Path, formats: Formats, json: Path | None) -> NoReturn:
    """Write the report of the finished pairs after an interruption, and end the command."""
    finished = sum(not result.row.note for result in found.results)
    if finished:
        finish(found, out, "table.json", "Comparison of inverters", {}, json, UNKNOWN, formats)
    interrupted(f"interrupted; finished pairs in {out}: {finished}; --resume true continues")


def read_editing(
    names: list[str], models: dict[str, LatentModel], checkpoints: dict[str, str], data: ImageData | None
) -> Editability:
    """Directions with these names in the folders of the models, and what measures edits along them.

    Raises:
        UserError: No model has directions with these names, or their factors cannot be changed in the data.
    """
    found: dict[str, list[Direction]] = {}
    for name, model in models.items():
        path = Path(locate(checkpoints[name])) / DIRECTIONS_FILE
        known = {each.name: each for each in load_directions(path, model)} if path.is_file() else {}
        found[name] = [known[each] for each in names if each in known]
        if missing := [each for each in names if each not in known]:
            print(
                f"{name} is not edited along {', '.join(missing)}: {DIRECTIONS_FILE} of its folder has none"
            )
    if not any(found.values()):
        raise UserError(
            f"--directions: no model has directions named {', '.join(names)} in {DIRECTIONS_FILE} of its "
            "folder; flows steer find writes such files"
        )
    first = next(model for name, model in models.items() if found[name])
    return Editability(data or data_of(first, None), found, load_predictor(None, first))


def digest_of(editing: Editability) -> list[Any]:
    """Plain values that determine the edits."""
    return [
        [name, each.name, each.sigma, hashlib.sha256(each.vector.numpy().tobytes()).hexdigest()]
        for name, some in editing.directions.items()
        for each in some
    ]


def check_possible(rows: list[Row]) -> None:
    """Raise UserError, with the reasons, if no pair of model and inverter is possible."""
    if all(row.impossible for row in rows):
        reasons = dict.fromkeys(f"{row.model}, {row.inverter}: {row.note}" for row in rows)
        raise UserError(f"no pair of --models and --inverters is possible. {'; '.join(reasons)}")
