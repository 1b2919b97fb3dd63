"""`flows compare`: compare inversion methods on models, with the same images and timing."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from flows import images as pixels
from flows.bounds import NonNegativeFloat, PositiveFloat, PositiveInt, Seed
from flows.checks import did_you_mean, some_of
from flows.commands.common import check_outputs, print_table, write_json
from flows.data.decode import EXTENSIONS
from flows.data.ood import ood_images
from flows.errors import EXIT_BUG, UserError, deprecated
from flows.files import expand
from flows.inversion.base import Inverter
from flows.inversion.comparison import Group, Row, likelihood_of
from flows.inversion.comparison import compare as run
from flows.inversion.distance import Distance
from flows.inversion.encoder import Encoder
from flows.inversion.exact import Exact
from flows.inversion.hybrid import Domain, Hybrid
from flows.inversion.layer import Layer
from flows.inversion.optimise import Algorithm, Optimise
from flows.inversion.records import ImageSource
from flows.inversion.report import write_comparison
from flows.inversion.tune import Tune
from flows.metrics.perceptual import EfficientNetLite0, FeatureNetwork, make_network
from flows.models.base import LatentModel
from flows.opening import first_test, open_model, read_source
from flows.page import as_text

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
    steps: PositiveInt = 300,
    starts: PositiveInt = 8,
    seconds: PositiveFloat | None = None,
    lr: PositiveFloat = 0.1,
    noise: bool = False,
    perceptual_weight: NonNegativeFloat = 0.0,
    edits: bool = True,
    perceptual: str = "auto",
    seed: Seed = 0,
    json: Path | None = None,
    device: str | None = None,
) -> None:
    """Invert images by several methods and report reconstructions, figures and records.

    Every inverter gets the same images and the same seed. Impossible pairs of model and inverter are listed
    with the reason. A pair that fails by a bug is listed too, its traceback is printed, and the command ends
    with exit code 1 after the report is written.

    Args:
        models: Folders or hub repositories of models with the same image shape and number of grey levels.
        inverters: Names of inverters. `exact`: the exact inverse. `encoder` or `encoder:SPACE`: the encoder,
            by default into w if the model has it. `exact-z`: the encoder's w, mapped exactly to z.
            `optimise`, `optimise:SPACE` or `optimise:SPACE:lbfgs`: optimisation of a code in z, w or w+, by
            Adam or L-BFGS. `hybrid`: optimisation that starts from the encoder's code. `in-domain` or
            `in-domain:likelihood`: `hybrid` with a penalty that keeps the code in the model's domain.
            `layer` or `layer:NAME`: optimisation of a layer's activations as well. `tune`: optimisation of
            the generator's weights as well.
        images: Groups of images. `test:N`: test images of the first model with a known data set.
            `upside-down:N`, `rotated:N` (by 90°), `flipped:N` (left to right): transformed test images.
            `generated:N`: samples of each model, for that model only. `ood`: out-of-distribution images (a
            cat, a person, …, text, noise). `user:FOLDER`: your own pictures, centre-cropped and resized.
        out: Output folder: index.html, summary.md, overview.png, table.csv, table.json, grid-*.png, and
            records for `flows render`.
        steps: Maximum number of optimisation steps per restart. `hybrid` and `in-domain` take at most 100,
            `tune` at most 350 on the weights, as in the papers.
        seconds: Maximum seconds per restart, for all images of a group together; not used by L-BFGS. None
            sets no limit.
        starts: Number of restarts of `optimise`, the first from the mean of the space, the others from random
            codes. Other methods have one.
        lr: Learning rate of `optimise`, and of the initial code in `layer` and `tune`, in units of std; other
            methods have their own.
        noise: Whether to optimise the noise inputs as well, for models that have them.
        perceptual_weight: Weight of the perceptual distance in the loss of all optimisations; the mean
            squared error of pixels in [−1, 1] has weight 1.
        edits: Whether to measure how well an edit can be undone, which inverts four more images per row.
        perceptual: Network of the perceptual distance: efficientnet-lite0, lpips-vgg, lpips-alex,
            lpips-squeeze, none, or auto, which takes efficientnet-lite0 if it is installed.
        seed: Seed of the inverters and of the edits.
        json: Additional file for the contents of table.json.
        device: Torch device; None takes CUDA if it is available.
    """
    check_outputs(out=out, json=json)
    loaded = {Path(name).name: open_model(name, device).eval() for name in models}
    if len(loaded) != len(models):
        raise UserError("--models: two models have the same name")
    for title, attribute in {"image shape": "image_shape", "number of grey levels": "bins"}.items():
        values = {name: getattr(model, attribute) for name, model in loaded.items()}
        if len(set(values.values())) > 1:
            raise UserError(f"--models: expected models with the same {title}, got {values}")
    network = choose_network(perceptual)
    if perceptual_weight and network is None:
        raise UserError("--perceptual_weight: there is no perceptual network; choose one by --perceptual")
    distance = Distance(perceptual=perceptual_weight, network=network if perceptual_weight else None)
    chosen = {name: make_inverter(name, steps, starts, lr, noise, seconds, distance) for name in inverters}
    for name in inverters:
        check_parts(name, loaded)
    first = next(iter(loaded.values()))
    groups: dict[str, Group] = {}
    for text in images:
        for group, members in read_group(text, first, loaded).items():
            if group in groups:
                raise UserError(f"--images: group {group!r} is given twice")
            groups[group] = members
    results = run(loaded, chosen, groups, seed, network, edits)
    check_possible([result.row for result in results])
    network_name = "no network" if network is None else network.name
    write_comparison(out, results, groups, loaded, network_name)
    bits = {
        name: {
            group: likelihood_of(model, members.images, members.labels_counted_by(model))
            for group, members in groups.items()
        }
        for name, model in loaded.items()
    }
    rows = [
        {
            **result.row.as_dict(),
            "each_psnr": {
                source.name: value
                for source, value in zip(groups[result.row.group].sources, result.each_psnr, strict=False)
            },
        }
        for result in results
    ]
    table = {"perceptual_network": network_name, "rows": rows, "bits_per_dim": bits}
    for path in (out / "table.json", json):
        write_json(path, table)
    show([result.row for result in results])
    pictures = f"{'overview.png, ' if (out / 'overview.png').exists() else ''}{len(groups)} grids"
    print(f"written to {out}: index.html, summary.md, table.csv, table.json, {pictures}, records")
    if bugs := sum(result.bug for result in results):
        print(f"pairs that failed by a bug, with the tracebacks above: {bugs}", file=sys.stderr)
        raise SystemExit(EXIT_BUG)


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


def make_inverter(
    text: str,
    steps: int,
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
        return Optimise(space, steps, lr, algorithm, starts, distance, noise, seconds=limit)
    domains: dict[tuple[str, ...], Domain] = {
        ("hybrid",): "none", ("in-domain",): "encoder", ("in-domain", "likelihood"): "likelihood",
    }  # fmt: skip
    if (name, *options) in domains:
        domain = domains[name, *options]
        return Hybrid(None, min(steps, 100), domain=domain, distance=distance, noise=noise, seconds=seconds)
    first = Optimise(None, steps, lr, distance=distance, noise=noise, seconds=seconds)
    if name == "tune" and not options:
        return Tune(first, min(steps, 350), distance=distance)
    if name == "layer" and len(options) <= 1:
        return Layer(first, options[0] if options else None, steps, distance=distance)
    raise UserError(
        f"--inverters: there is no {text!r}; expected exact, exact-z, encoder, encoder:SPACE, optimise, "
        "optimise:SPACE, optimise:SPACE:lbfgs, hybrid, in-domain, in-domain:likelihood, layer, layer:NAME "
        "or tune"
    )


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


def read_group(text: str, model: LatentModel, models: dict[str, LatentModel]) -> dict[str, Group]:
    """Groups of images that one word of `--images` names.

    Raises:
        UserError: There is no such group, or the folder contains no pictures.
    """
    name, _, rest = text.partition(":")
    if name in ("ood", "foreign") and not rest:
        if name == "foreign":
            deprecated(f"--images {name}", "--images ood")
        suite = ood_images(model.image_shape, model.bins)
        images = torch.cat([pictures[:1] for pictures in suite.values()])
        return {name: Group(images, [ImageSource(each) for each in suite])}
    if name == "user" and rest:
        # The shell expands no ~ within a word; the path is absolute because records are used elsewhere.
        folder = expand(rest).resolve()
        files = sorted(folder.glob("*"))
        paths = [path for path in files if path.is_file() and path.suffix.lower() in EXTENSIONS]
        if left_out := [path.name for path in files if path not in paths]:
            print(f"--images {text}: not read, because they are no pictures: {some_of(left_out)}")
        if not paths:
            raise UserError(f"--images {text}: no pictures ({', '.join(EXTENSIONS)}) in {rest}")
        read = [read_source(path, model.image_shape) for path in paths]
        pictures = pixels.reduce(torch.stack([image for image, _ in read]), model.bins)
        return {name: Group(pictures, [source for _, source in read])}
    if name == "generated" and _is_count(rest):
        return {f"generated by {key}": _generated(key, each, int(rest)) for key, each in models.items()}
    if name in TRANSFORMS and _is_count(rest):
        known = next((each for each in models.values() if "source" in each.description), model)
        batch = first_test(known, int(rest))
        sources = [ImageSource(f"test {i}") for i in range(len(batch.images))]
        transformed = TRANSFORMS[name](batch.images).contiguous()
        return {name: Group(transformed, sources, labels=batch.labels, data=known.description.get("name"))}
    raise UserError(
        f"--images: there is no {text!r}; expected {', '.join(f'{each}:N' for each in TRANSFORMS)}, "
        "generated:N, ood or user:FOLDER"
    )


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
    names = ("psnr", "ssim", "perceptual", "bit_exact", "seconds", "steps", "undone")
    shown = [
        [row.model, row.inverter, row.group, *(as_text(getattr(row, name)) for name in names)]
        for row in rows
        if not row.note
    ]
    print_table(["model", "inverter", "images", *names], shown)
    for row in rows:
        if row.diverged:
            print(
                f"{row.model}, {row.inverter}, {row.group}: every search diverged for {row.diverged} of "
                f"{row.images} images, which are not in the record"
            )
    for note in dict.fromkeys(f"{row.model}, {row.inverter}: {row.reason}" for row in rows if row.note):
        print(note)
