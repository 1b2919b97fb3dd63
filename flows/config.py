"""Configs of experiments: parser of a training, links between data and model, variants."""

import importlib
import inspect
import json
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

import flows.data
import flows.models
import flows.semantics
from flows.core.bounds import plain
from flows.core.parser import NAMED, ConfigFile, Parser, add_import_option, import_all, linked
from flows.core.schema import parse
from flows.data.base import ImageData
from flows.errors import EXIT_CODES, DataMissing, fail
from flows.semantics.base import json_attributes
from flows.storage.files import read_yaml
from flows.storage.stored import StoredModule, read_arguments
from flows.training import objectives
from flows.training.checkpoint import states
from flows.training.folder import RUN_CONFIG
from flows.training.phase import Objective
from flows.training.settings import Training

NAMED.update((ImageData, StoredModule, Objective))
DEFAULT_CONFIG = "digits/glow"


def discover() -> None:
    """Import all models, data sets and objectives, so that configs can name their classes without a path."""
    for package in (flows.data, flows.models, flows.semantics, objectives):
        import_all(package)


def attributes_of_data(data: ImageData) -> list[dict[str, Any]]:
    """Attributes that a predictor of this data set predicts, as plain JSON values.

    Linked arguments are computed for every model, but the classes of an image folder are known only if its
    files exist. Without the files, there are no attributes.
    """
    try:
        return json_attributes(data.all_attributes())
    except DataMissing:
        return []


def classes_of_masks(data: ImageData) -> list[str]:
    """Classes of the masks of a data set; none without its files, as for `attributes_of_data`."""
    try:
        return list(data.mask_classes)
    except DataMissing:
        return []


OF_DATA: dict[str, Callable[[ImageData], Any]] = {
    "image_shape": attrgetter("image_shape"),
    "bins": attrgetter("bins"),
    "attributes": attributes_of_data,
    "mask_classes": classes_of_masks,
}
"""Arguments of a model that are those of its data set, so that changing the data set changes all of them."""


def experiment_parser(program: str = "train.py") -> Parser:
    """Create the parser of one experiment, from config files and the command line."""
    discover()
    parser = Parser(
        prog=program,
        description="Train a model. Later options and configs override earlier ones.",
        epilog=EXIT_CODES,
        default_env=False,
    )
    add_run_options(parser)
    parser.add_subclass_arguments(ImageData, "data", required=True, help="Data set")
    parser.add_subclass_arguments(StoredModule, "model", required=True, help="Model")
    parser.add_argument(
        "--objective", type=Objective, default={"class_path": "Likelihood"}, help="Training objective"
    )
    parser.add_class_arguments(Training, "training")
    for name, compute in OF_DATA.items():
        parser.link_arguments("data", f"model.init_args.{name}", linked(compute), apply_on="instantiate")
    return parser


def add_run_options(parser: Parser) -> None:
    """Add the options of a run besides data, model, objective and training."""
    parser.add_argument(
        "--config",
        action=ConfigFile,
        help="YAML file, or the name of a config of flows such as fashion/glow; may be given several times",
    )
    add_import_option(parser)
    parser.add_argument(
        "--folder", type=Path, required=True, help="Folder of the run: exported model, logs, training states"
    )
    parser.add_argument(
        "--resume",
        type=str | None,
        default=None,
        help="Training state of this run to resume: `latest` or a path",
    )
    parser.add_argument(
        "--init",
        type=str | None,
        default=None,
        help="Checkpoint whose weights training starts from, a folder or a name of `flows models`; the model "
        "has its sizes, unless they are given as options",
    )
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Whether to replace an existing run in the folder"
    )
    parser.add_argument(
        "--extend",
        type=bool,
        default=False,
        help="Whether a resumed run may have more training.images than it was started with",
    )
    add_recipe_options(parser)


def add_recipe_options(parser: Parser) -> None:
    """Add the options for versions of a config: variants by name, recipes by number of pictures."""
    parser.add_argument(
        "--variant", type=str | None, default=None, help="Name of a variant of the config, to be applied"
    )
    parser.add_argument(
        "--variants", type=dict[str, dict[str, Any]], default={}, help="Variants: name to options and values"
    )
    parser.add_argument(
        "--recipe",
        type=int | None,
        default=None,
        help="Recipe of the config to be applied, by its number; null takes that of the training pictures",
    )
    parser.add_argument(
        "--recipes",
        type=dict[int, dict[str, Any]],
        default={},
        help="Recipes: number of training pictures from which on one applies, to options and values",
    )


def resolve(parser: Parser, settings: Namespace) -> dict[str, Any]:
    """Return every setting as plain values, including nulls, since the default may be another value."""
    resolved: dict[str, Any] = yaml.safe_load(parser.dump(settings, skip_unset=False))
    # Its options are settings by now; read again, it would override what was typed.
    return {**resolved, "recipes": {}}


def parse_experiment(
    arguments: list[str] | None = None, program: str = "train.py"
) -> tuple[Parser, Namespace]:
    """Parse the command line of `train.py` or `flows train`; --config defaults to `digits/glow`.

    The options of the recipe for the number of training pictures override the config, those of the chosen
    variant override both and are overridden by the command line, as are the sizes of the checkpoint that
    training starts from.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not any(word == "--config" or word.startswith("--config=") for word in given):
        given = ["--config", DEFAULT_CONFIG, *given]
    parser = experiment_parser(program)
    settings = parser.parse_args(given)
    extra = [*words_of_recipe(settings), *words_of_variant(settings), *words_of_init(settings, given)]
    if not extra:
        return parser, settings
    last = max(i for i, word in enumerate(given) if word.startswith("--config"))
    last += 1 if "=" in given[last] else 2
    return parser, parser.parse_args([*given[:last], *extra, *given[last:]])


def words_of_recipe(settings: Namespace) -> list[str]:
    """Options of the recipe for the training pictures, as they would be typed, and the recipe's number.

    A run that is resumed keeps its recipe, whatever came and went.
    """
    recipes = {int(number): options for number, options in settings.recipes.items()}
    if not recipes:
        return []
    number = settings.recipe if settings.recipe is not None else recipe_of_run(settings)
    if number is None:
        number = recipe_for(settings.data, recipes)
        if number is None:
            return []
    if number not in recipes:
        fail(f"--recipe {number}: this config's recipes are: {', '.join(map(str, sorted(recipes)))}")
    return [*as_typed(recipes[number]), f"--recipe={number}"]


def recipe_for(data: Namespace, recipes: Collection[int]) -> int | None:
    """Number of the recipe for the training images of a data set; None if their number is not known."""
    try:
        available = instantiated(data).training_images
    except DataMissing:  # said where the data are opened
        return None
    return max((each for each in recipes if available is not None and each <= available), default=None)


def recipe_of_run(settings: Namespace) -> int | None:
    """Number of the recipe of a run that is resumed; None if there is none."""
    receipt = settings.folder / RUN_CONFIG
    if settings.resume is None or not receipt.is_file():
        return None
    number = parse(dict[str, Any], read_yaml(receipt)).get("recipe")
    return None if number is None else int(number)


def instantiated(data: Namespace) -> ImageData:
    """Data set of parsed settings."""
    module, _, name = data.class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    arguments = data.get("init_args") or Namespace()
    made: ImageData = cls(**plain(arguments.as_dict()))
    return made


def words_of_variant(settings: Namespace) -> list[str]:
    """Options of the chosen variant, as they would be typed."""
    if settings.variant is None:
        return []
    variants = {str(name): options for name, options in settings.variants.items()}  # YAML reads 5 as a number
    if settings.variant not in variants:
        fail(f"--variant {settings.variant}: this config's variants are: {', '.join(variants) or 'none'}")
    options = variants[settings.variant]
    return as_typed(options)


def as_typed(options: Mapping[str, Any]) -> list[str]:
    """Options as words of a command line; strings are passed unchanged, other values as JSON."""
    words = {name: v if isinstance(v, str) else json.dumps(v) for name, v in options.items()}
    return [f"--{name}={word}" for name, word in words.items()]


def arguments_of_run(settings: Namespace) -> dict[str, Any]:
    """Class and arguments of the model of a run that is resumed; empty if there is none.

    The checkpoint that it started from is not needed any more.
    """
    receipt = settings.folder / RUN_CONFIG
    if settings.resume is None or not receipt.is_file() or not states(settings.folder):
        return {}
    model = parse(dict[str, Any], parse(dict[str, Any], read_yaml(receipt)).get("model") or {})
    arguments: dict[str, Any] = parse(dict[str, Any], model.get("init_args") or {})
    return {"model_type": str(model.get("class_path")).rpartition(".")[2], **arguments}


def words_of_init(settings: Namespace, given: Sequence[str]) -> list[str]:
    """Sizes of the model of `--init`, as options that are not typed; none for a model of another class.

    A class with a rule of its own for other sizes, as LIA has, keeps those of the config.
    """
    if settings.init is None or any(word.split("=")[0] == "--model" for word in given):
        return []
    arguments = arguments_of_run(settings) or read_arguments(settings.init)
    module, _, name = settings.model.class_path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    if name != arguments["model_type"] or cls.start_from is not StoredModule.start_from:
        return []
    typed = {word.split("=")[0].removeprefix("--model.").removeprefix("init_args.") for word in given}
    sizes = {
        key: arguments[key]
        for key in inspect.signature(cls).parameters
        if key in arguments and key not in OF_DATA and key not in typed
    }
    return as_typed({f"model.{key}": value for key, value in sizes.items()})
