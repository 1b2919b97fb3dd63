"""Configs of experiments: parser of train.py, links between data and model, variants."""

import json
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import Namespace

import flows.data
import flows.models
import flows.semantics
from flows.data.base import ImageData
from flows.errors import EXIT_CODES, DataMissing, fail
from flows.parser import NAMED, ConfigFile, Parser, import_all, linked
from flows.semantics.base import json_attributes
from flows.stored import StoredModule
from flows.training import objectives
from flows.training.phase import Objective
from flows.training.settings import Training

NAMED.update((ImageData, StoredModule, Objective))
DEFAULT_CONFIG = "configs/digits/glow.yaml"


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


def experiment_parser() -> Parser:
    """Create the parser of train.py: one experiment, from config files and the command line."""
    discover()
    parser = Parser(
        prog="train.py",
        description="Train a model. Later options and configs override earlier ones.",
        epilog=EXIT_CODES,
        default_env=False,
    )
    parser.add_argument("--config", action=ConfigFile, help="YAML file; may be given several times")
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
        help="Checkpoint whose weights training starts from, a folder or a hub repository",
    )
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Whether to replace an existing run in the folder"
    )
    parser.add_argument(
        "--variant", type=str | None, default=None, help="Name of a variant of the config, to be applied"
    )
    parser.add_argument(
        "--variants", type=dict[str, dict[str, Any]], default={}, help="Variants: name to options and values"
    )
    parser.add_subclass_arguments(ImageData, "data", required=True, help="Data set")
    parser.add_subclass_arguments(StoredModule, "model", required=True, help="Model")
    parser.add_argument(
        "--objective", type=Objective, default={"class_path": "Likelihood"}, help="Training objective"
    )
    parser.add_class_arguments(Training, "training")
    # Image shape, grey levels, attributes and mask classes of a model are those of its data set, so changing
    # the data set changes all of them.
    computed: dict[str, Callable[[ImageData], Any]] = {
        "image_shape": attrgetter("image_shape"),
        "bins": attrgetter("bins"),
        "attributes": attributes_of_data,
        "mask_classes": lambda data: list(data.mask_classes),
    }
    for name, compute in computed.items():
        parser.link_arguments("data", f"model.init_args.{name}", linked(compute), apply_on="instantiate")
    return parser


def resolve(parser: Parser, settings: Namespace) -> dict[str, Any]:
    """Return every setting as plain values, including nulls, since the default may be another value."""
    resolved: dict[str, Any] = yaml.safe_load(parser.dump(settings, skip_unset=False))
    return resolved


def parse_experiment(arguments: list[str] | None = None) -> tuple[Parser, Namespace]:
    """Parse train.py's command line; --config defaults to `configs/digits/glow.yaml`.

    The options of the chosen variant override the config and are overridden by the command line.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not any(word == "--config" or word.startswith("--config=") for word in given):
        given = ["--config", DEFAULT_CONFIG, *given]
    parser = experiment_parser()
    settings = parser.parse_args(given)
    if settings.variant is None:
        return parser, settings
    variants = {str(name): options for name, options in settings.variants.items()}  # YAML reads 5 as a number
    if settings.variant not in variants:
        fail(f"--variant {settings.variant}: this config's variants are: {', '.join(variants) or 'none'}")
    options = variants[settings.variant]
    # Strings are passed unchanged; null, numbers and lists as JSON, which is a subset of YAML.
    words = {name: v if isinstance(v, str) else json.dumps(v) for name, v in options.items()}
    extra = [f"--{name}={word}" for name, word in words.items()]
    last = max(i for i, word in enumerate(given) if word.startswith("--config"))
    last += 1 if "=" in given[last] else 2
    return parser, parser.parse_args([*given[:last], *extra, *given[last:]])
