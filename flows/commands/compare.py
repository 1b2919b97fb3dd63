"""`flows compare`: compare inversion methods on models, with the same images and timing."""

import hashlib
import math
import re
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from flows import __version__
from flows import images as pixels
from flows.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from flows.checks import did_you_mean, some_of
from flows.commands.common import Label, check_outputs, option_labels, write_json
from flows.commands.given import print_crops
from flows.data.base import ImageData
from flows.data.decode import EXTENSIONS
from flows.data.ood import ood_images
from flows.editing.editability import Editability
from flows.errors import EXIT_BUG, UserError, deprecated, interrupted
from flows.files import expand
from flows.inversion.base import Inverter
from flows.inversion.comparison import Group, Result, Row, likelihood_of
from flows.inversion.comparison import compare as run
from flows.inversion.distance import Distance
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact
from flows.inversion.hybrid import Domain, Hybrid
from flows.inversion.layer import Layer
from flows.inversion.optimise import Algorithm, Optimise
from flows.inversion.pairs import Pairs
from flows.inversion.records import ImageSource
from flows.inversion.report import write_comparison
from flows.inversion.summary import Distances
from flows.inversion.tune import Tune
from flows.metrics.identity import Identity
from flows.metrics.perceptual import EfficientNetLite0, FeatureNetwork, make_network
from flows.models.base import LatentModel
from flows.opening import data_of, first_test, load_predictor, names_of, open_model, read_sources
from flows.page import as_text
from flows.steering.base import DIRECTIONS_FILE, Direction, load_directions
from flows.stored import locate
from flows.table import Table

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
}
"""Reasons why a figure of the table can be unknown; a pair without figures has its reason in `note`."""
PROJECTOR = 1000
"""Number of steps of StyleGAN2's projector."""
TRANSFORMS: dict[str, Callable[[Tensor], Tensor]] = {
    "test": lambda images: images,
    "upside-down": lambda images: images.flip(-2),
    "rotated": lambda images: images.rot90(1, (-2, -1)),
    "flipped": lambda images: images.flip(-1),
}


def compare(
    models: list[str],
    inverters: list[str],
    images: list[str],
    out: Path = Path("comparison"),
    steps: PositiveInt | None = None,
    starts: PositiveInt = 1,
    seconds: PositiveFloat | None = None,
    lr: PositiveFloat = 0.1,
    noise: bool = False,
    perceptual_weight: NonNegativeFloat = 0.0,
    edits: bool = True,
    directions: list[str] | None = None,
    perceptual: str = "auto",
    identity: Path | None = None,
    seed: Seed = 0,
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
        models: Folders or hub repositories of models with the same image shape and number of grey levels.
        inverters: Names of inverters. `exact`: the exact inverse. `encoder` or `encoder:SPACE`: the encoder,
            by default into w if the model has it. `exact-z`: the encoder's w, mapped exactly to z.
            `optimise`, `optimise:SPACE` or `optimise:SPACE:lbfgs`: optimisation of a code in z, w or w+, by
            Adam or L-BFGS. `hybrid`: optimisation that starts from the encoder's code. `in-domain` or
            `in-domain:likelihood`: `hybrid` with a penalty that keeps the code in the model's domain.
            `layer` or `layer:NAME`: optimisation of a layer's activations as well. `tune`: optimisation of
            the generator's weights as well, with locality regularisation; `tune:no-locality` without.
        images: Groups of images. `test:N`: test images of the first model with a known data set.
            `upside-down:N`, `rotated:N` (by 90°), `flipped:N` (left to right): transformed test images.
            `generated:N`: samples of each model, for that model only. `ood`: out-of-distribution images (a
            cat, a person, …, text, noise). `user:FOLDER`: your own pictures, centre-cropped and resized.
        out: Output folder: index.html, summary.md, overview.png, table.csv, table.json, grid-*.png, and
            records for `flows render`, `decode` and `steer apply`, and the finished pairs.
        steps: Maximum number of optimisation steps per restart. None takes the published numbers: 1000 for
            `optimise` and the initial code of `layer`, 300 for the activations of `layer`, 100 for `hybrid`
            and `in-domain`, 450 for the initial code of `tune` and 350 for its weights. A number applies to
            `optimise` and `layer`, and limits the others.
        seconds: Maximum seconds per restart, for all images of a group together; not used by L-BFGS. None
            sets no limit.
        starts: Number of restarts of `optimise`, the first from the mean of the space, the others from random
            codes. Other methods have one.
        lr: Learning rate of `optimise`, and of the initial code in `layer` and `tune`, in units of std; other
            methods have their own.
        noise: Whether to optimise the noise inputs as well, for models that have them, as StyleGAN2's
            projector does.
        perceptual_weight: Weight of the perceptual distance in the loss of all optimisations; the mean
            squared error of pixels in [−1, 1] has weight 1.
        edits: Whether to measure how well an edit can be undone, which inverts four more images per row.
        directions: Names of directions in the models' directions.safetensors. Test images are edited along
            them and compared with true edits, if their data set can render them again with another factor;
            eight edited images per direction are inverted again and moved back.
        perceptual: Network of the perceptual distance: efficientnet-lite0, lpips-vgg, lpips-alex,
            lpips-squeeze, none, or auto, which takes efficientnet-lite0 if it is installed. LPIPS takes the
            weights of its backbone from torch's hub folder, or from a file, `lpips-vgg:FILE`.
        identity: File of a network that recognises faces, exported by torch.export, for the identity score;
            see `flows.metrics.Identity`. None measures none.
        seed: Seed of the inverters and of the edits.
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
    for title, attribute in {"image shape": "image_shape", "number of grey levels": "bins"}.items():
        values = {name: getattr(model, attribute) for name, model in loaded.items()}
        if len(set(values.values())) > 1:
            raise UserError(f"--models: expected models with the same {title}, got {values}")
    network = choose_network(perceptual)
    if perceptual_weight and network is None:
        raise UserError("--perceptual_weight: there is no perceptual network; choose one by --perceptual")
    recognised = None if identity is None else Identity(identity)
    distance = Distance(perceptual=perceptual_weight, network=network if perceptual_weight else None)
    chosen = {name: make_inverter(name, steps, starts, lr, noise, seconds, distance) for name in inverters}
    for name in inverters:
        check_parts(name, loaded)
    editing = None if directions is None else read_editing(directions, loaded, checkpoints, data)
    first = next(iter(loaded.values()))
    groups: dict[str, Group] = {}
    for text in images:
        for group, members in read_group(text, first, loaded, label, data).items():
            if group in groups:
                raise UserError(f"--images: group {group!r} is given twice")
            groups[group] = members
    if label is not None and not {"user", "ood"} & set(groups):
        raise UserError("--label is the class of the images of user and ood; leave it out")
    network_name = "no network" if network is None else network.name
    distances = Distances(network_name, distance.text)
    settings = {
        "steps": steps,
        "starts": starts,
        "seconds": seconds,
        "lr": lr,
        "noise": noise,
        "seed": seed,
        "perceptual": [network_name, perceptual_weight],
        "identity": None if recognised is None else recognised.name,
        "edits": edits,
        "directions": [] if editing is None else digest_of(editing),
        "flows": __version__,
    }
    store = Pairs(out, settings)
    if not resume:
        store.clear()
    results: list[Result] = []
    try:
        run(loaded, chosen, groups, seed, network, edits, store, results, editing, recognised)
    except KeyboardInterrupt:
        end_early(out, json, results, groups, distances, pictures)
    check_possible([result.row for result in results])
    store.keep_only(results)
    write_comparison(out, results, groups, distances, pictures)
    bits = {
        name: {
            group: likelihood_of(model, members.images, members.labels_counted_by(model))
            for group, members in groups.items()
        }
        for name, model in loaded.items()
    }
    write_tables((out / "table.json", json), results, groups, distances, bits)
    show([result.row for result in results])
    sheets = f"{'overview.png, ' if (out / 'overview.png').exists() else ''}{len(groups)} grids"
    print(f"written to {out}: index.html, summary.md, table.csv, table.json, {sheets}, records")
    if bugs := sum(result.bug for result in results):
        print(f"pairs that failed by a bug, with the tracebacks above: {bugs}", file=sys.stderr)
        raise SystemExit(EXIT_BUG)


def write_tables(
    paths: tuple[Path | None, ...],
    results: list[Result],
    groups: dict[str, Group],
    distances: Distances,
    bits: dict[str, dict[str, float]],
) -> None:
    """Write the table as JSON, with the PSNR of every image; `bits` has bits/dim by model and group."""
    rows = [
        {
            **result.row.as_dict(),
            "each_psnr": {
                source.name: value
                for source, value in zip(groups[result.row.group].sources, result.each_psnr, strict=False)
            },
            "each_edit": [asdict(edit.figures) for edit in result.edits],
        }
        for result in results
    ]
    for path in paths:
        table = {
            "perceptual_network": distances.measured,
            "loss": distances.loss,
            "rows": rows,
            "bits_per_dim": bits,
        }
        write_json(path, table, UNKNOWN)


def end_early(
    out: Path,
    json: Path | None,
    results: list[Result],
    groups: dict[str, Group],
    distances: Distances,
    pictures: bool,
) -> NoReturn:
    """Write the report of the finished pairs after an interruption, and end the command."""
    finished = sum(not result.row.note for result in results)
    if finished:
        write_comparison(out, results, groups, distances, pictures)
        write_tables((out / "table.json", json), results, groups, distances, {})
    interrupted(f"interrupted; finished pairs in {out}: {finished}; --resume true continues")


def choose_network(name: str) -> FeatureNetwork | None:
    """Network of a name: `auto` gives EfficientNet-Lite0 if it is installed, `none` gives None.

    Raises:
        UserError: There is no such network, or it is not installed.
    """
    if name == "none":
        return None
    if name == "auto" and not EfficientNetLite0.is_installed():
        print(f"no perceptual distance: {EfficientNetLite0.missing()}")
        return None
    try:
        return make_network("efficientnet-lite0" if name == "auto" else name)
    except UserError as error:
        raise type(error)(f"--perceptual: {error}") from error


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


def make_inverter(
    text: str,
    steps: int | None,
    starts: int = 1,
    lr: float = 0.1,
    noise: bool = False,
    seconds: float | None = None,
    distance: Distance | None = None,
) -> Inverter:
    """Inverter of a name such as `exact`, `encoder`, `encoder:w` or `optimise:w:lbfgs`.

    Raises:
        UserError: There is no such inverter.
    """
    name, *options = text.split(":")
    if name == "exact" and not options:
        return Exact()
    if name == "exact-z" and not options:
        return Encoder("z")
    if name == "encoder" and len(options) <= 1:
        return Encoder(*options)
    if name == "optimise" and len(options) <= 2 and options[1:] in ([], ["adam"], ["lbfgs"]):
        algorithm: Algorithm = "lbfgs" if options[1:] == ["lbfgs"] else "adam"
        space = options[0] if options else None
        limit = None if algorithm == "lbfgs" else seconds
        return Optimise(space, steps or PROJECTOR, lr, algorithm, starts, distance, noise, seconds=limit)
    domains: dict[tuple[str, ...], Domain] = {
        ("hybrid",): "none", ("in-domain",): "encoder", ("in-domain", "likelihood"): "likelihood",
    }  # fmt: skip
    if (name, *options) in domains:
        domain = domains[name, *options]
        return Hybrid(
            None, limited(steps, 100), domain=domain, distance=distance, noise=noise, seconds=seconds
        )
    if name == "tune" and options in ([], ["no-locality"]):
        pivot = Optimise(None, limited(steps, 450), lr, distance=distance, noise=noise, seconds=seconds)
        locality = 0.0 if options else 0.1
        return Tune(pivot, limited(steps, 350), distance=distance, locality=locality)
    if name == "layer" and len(options) <= 1:
        first = Optimise(None, steps or PROJECTOR, lr, distance=distance, noise=noise, seconds=seconds)
        return Layer(first, options[0] if options else None, steps or 300, distance=distance)
    raise UserError(
        f"--inverters: there is no {text!r}; expected exact, exact-z, encoder, encoder:SPACE, optimise, "
        "optimise:SPACE, optimise:SPACE:lbfgs, hybrid, in-domain, in-domain:likelihood, layer, layer:NAME, "
        "tune or tune:no-locality"
    )


def limited(steps: int | None, published: int) -> int:
    """Published number of steps of a method, at most `steps`."""
    return published if steps is None else min(steps, published)


def check_parts(text: str, models: dict[str, LatentModel]) -> None:
    """Raise UserError if no model has the space or the layer that the name of an inverter ends with."""
    name, part, *_ = (*text.split(":"), "")
    if not part or name not in ("encoder", "optimise", "layer"):
        return
    kind = "layer" if name == "layer" else "space"
    known = dict.fromkeys(
        each for model in models.values() for each in (model.layers() if name == "layer" else model.spaces)
    )
    if part not in known:
        raise UserError(
            f"--inverters {text}: no model has the {kind} {part!r}; expected one of "
            f"{', '.join(known) or 'none, because no model has any'}."
            f"{did_you_mean(part, known)}"
        )


def read_group(
    text: str,
    model: LatentModel,
    models: dict[str, LatentModel],
    label: Label | None = None,
    data: ImageData | None = None,
) -> dict[str, Group]:
    """Groups of images that one word of `--images` names.

    Args:
        text: Word of the option.
        model: Model whose image shape and grey levels all models have.
        models: Models by name.
        label: Class of images whose class is not known otherwise.
        data: Data set of test images; None takes that of a model.

    Raises:
        UserError: There is no such group, or the folder contains no pictures.
    """
    name, _, rest = text.partition(":")
    if name in ("ood", "foreign") and not rest:
        if name == "foreign":
            deprecated(f"--images {name}", "--images ood")
        suite = ood_images(model.image_shape, model.bins)
        images = torch.cat([pictures[:1] for pictures in suite.values()])
        return {
            name: Group(images, [ImageSource(each) for each in suite], **classes(label, models, len(images)))
        }
    if name == "user" and rest:
        folder = expand(rest)  # the shell expands no ~ within a word
        files = sorted(folder.glob("*"))
        paths = [path for path in files if path.is_file() and path.suffix.lower() in EXTENSIONS]
        if left_out := [path.name for path in files if path not in paths]:
            print(f"--images {text}: not read, because they are no pictures: {some_of(left_out)}")
        if not paths:
            raise UserError(f"--images {text}: no pictures ({', '.join(EXTENSIONS)}) in {rest}")
        images, sources = read_sources(paths, model.image_shape, resize=True)
        print_crops(sources, model)
        # Names within the folder: a record that is published does not name folders of this machine.
        names = [replace(source, name=Path(source.name).name) for source in sources]
        return {name: Group(pixels.reduce(images, model.bins), names, **classes(label, models, len(names)))}
    if name == "generated" and _is_count(rest):
        return {f"generated by {key}": _generated(key, each, int(rest)) for key, each in models.items()}
    if name in TRANSFORMS and _is_count(rest):
        known = next((each for each in models.values() if "source" in each.description), model)
        batch = first_test(known, int(rest), data)
        sources = [ImageSource(f"test {i}") for i in range(len(batch.images))]
        if len(sources) < int(rest):
            print(f"--images {text}: the data set has {len(sources)} test images; all are used")
        transformed = TRANSFORMS[name](batch.images).contiguous()
        group = Group(
            transformed,
            sources,
            labels=batch.labels,
            data=known.description.get("name"),
            from_test=name == "test",
        )
        return {name: group}
    raise UserError(
        f"--images: there is no {text!r}; expected {', '.join(f'{each}:N' for each in TRANSFORMS)}, "
        "generated:N, ood or user:FOLDER"
    )


def classes(label: Label | None, models: dict[str, LatentModel], n: int) -> dict[str, Any]:
    """Arguments of `Group` for n images of the class of --label: labels, and the data set that has the class.

    Raises:
        UserError: No model has this class, or none is class-conditional.
    """
    conditional = [model for model in models.values() if model.num_classes]
    if label is None:
        return {}
    model = (conditional or list(models.values()))[0]
    labels = option_labels(model, label, n)
    return {"labels": None if labels is None else labels.cpu(), "data": model.description.get("name")}


def _is_count(text: str) -> bool:
    return bool(re.fullmatch("[1-9][0-9]{0,8}", text))


def _generated(name: str, model: LatentModel, n: int) -> Group:
    codes = model.sample(n, model.search_space, 7)
    sources = [ImageSource(f"generated {i}") for i in range(n)]
    return Group(model.decode_bytes(codes), sources, {name: codes}, name, codes.labels)


def check_possible(rows: list[Row]) -> None:
    """Raise UserError, with the reasons, if no pair of model and inverter is possible."""
    if all(row.impossible for row in rows):
        reasons = dict.fromkeys(f"{row.model}, {row.inverter}: {row.note}" for row in rows)
        raise UserError(f"no pair of --models and --inverters is possible. {'; '.join(reasons)}")


def show(rows: list[Row]) -> None:
    """Print the table on the terminal, then the reasons of impossible and failed pairs."""
    names = ["psnr", "ssim", "perceptual", "bit_exact", "seconds", "steps", "undone"]
    if not all(math.isnan(row.edited) for row in rows):
        names += ["edited", "back"]
    shown = [
        [row.model, row.inverter, row.group, *(as_text(getattr(row, name)) for name in names)]
        for row in rows
        if not row.note
    ]
    Table(["model", "inverter", "images", *names], shown).print()
    for row in rows:
        if row.diverged:
            print(
                f"{row.model}, {row.inverter}, {row.group}: every search diverged for {row.diverged} of "
                f"{row.images} images, which are not in the record"
            )
    for note in dict.fromkeys(f"{row.model}, {row.inverter}: {row.reason}" for row in rows if row.note):
        print(note)
