"""Configs and command lines: typed signatures, short class names, and readable errors."""

import importlib
import inspect
import json
import os
import pkgutil
import re
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any, NoReturn

import jsonargparse
import yaml
from jsonargparse import ActionConfigFile, ArgumentParser, Namespace

import flows.data
import flows.models
import flows.semantics
from flows.checks import did_you_mean
from flows.data.base import ImageData
from flows.errors import EXIT_CODES, DataMissing, fail
from flows.semantics.base import json_attributes
from flows.stored import StoredModule
from flows.training import objectives
from flows.training.phase import Objective
from flows.training.settings import Training

jsonargparse.set_parsing_settings(docstring_parse_attribute_docstrings=True)

DEFAULT_CONFIG = "configs/digits/glow.yaml"


def discover() -> None:
    """Import all models, data sets and objectives, so that configs can name their classes without a path."""
    for package in (flows.data, flows.models, flows.semantics, objectives):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


class Parser(ArgumentParser):
    """jsonargparse's parser with one-line errors that name the closest valid word; exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if os.environ.get("FLOWS_DEBUG") and ex is not None:
            raise ex
        text = " ".join(line.strip() for line in str(message).splitlines() if line.strip())
        unknown = re.search(r'key "([\w.]+)".*dot import path string: (\w+)', text)
        if unknown:
            text = f"{unknown[1]}: there is no class named '{unknown[2]}'."
        fail(shorten(plain(text)) + self.suggestion(text))

    def instantiate(self, *given: Any, **options: Any) -> Namespace:
        """Instantiate as jsonargparse does, but raise the exceptions of constructors unchanged.

        jsonargparse would wrap them in a list of the union's members and the namespace of all arguments.
        """
        options.setdefault("instantiators", [(_construct, object, True)])
        try:
            return super().instantiate(*given, **options)
        except _Raised as raised:
            raise raised.error from None

    def suggestion(self, message: str) -> str:
        """Return ` Did you mean …?` for the word that `message` is about, or an empty string."""
        quoted = re.findall(
            r"""Option ['"]([^'"]+)['"]|option ['"]([^'"]+)['"]|--([\w.]+)|class named '(\w+)'""", message
        )
        quoted += re.findall(r"""invalid choice: '(\w+)'()""", message)
        quoted += re.findall(r"""class_path ['"]([^'"]+)['"]|Unrecognized arguments: -*([\w.]+)""", message)
        words = [word for groups in quoted for word in groups if word]
        known = self.known_words(message)
        for word in words:
            for candidate in (word, word.rsplit(".", 1)[-1]):
                if candidate not in known and (hint := did_you_mean(candidate, known)):
                    return hint
        return ""

    def known_words(self, message: str) -> set[str]:
        """All options, classes and constructor arguments that a config can name."""
        options = {action.dest for action in self._actions}
        options |= {str(choice) for action in self._actions for choice in action.choices or ()}
        classes = [*_subclasses(ImageData), *_subclasses(StoredModule), *_subclasses(Objective)]
        named = {cls.__name__ for cls in classes}
        mentioned = [cls for cls in classes if re.search(rf"\b{cls.__name__}\b", message)]
        arguments = {name for cls in mentioned or classes for name in _parameters(cls)}
        return options | {option.rsplit(".", 1)[-1] for option in options} | named | arguments


class _Raised(BaseException):
    """Exception of a constructor, passed through jsonargparse, which catches every `Exception`."""

    def __init__(self, error: Exception):
        self.error = error


def _construct(cls: type, *given: Any, **options: Any) -> Any:
    try:
        return cls(*given, **options)
    except Exception as error:
        raise _Raised(error) from error


PLAIN = (
    (r'Parser key "([\w.+]+)": ', r"\1: "),
    (r"Not of type (\w+): (.+?) does not conform to restriction (.+)", r"expected \3, got \2"),
    (r"Not of type PositiveInt: invalid literal .*: '(.*)'", r"expected a whole number above 0, got '\1'"),
    (r"Not of type \w+: could not convert string to float: '(.*)'", r"expected a number, got '\1'"),
    (r"Expected a <class '(?:\w+\.)*(\w+)'>", r"expected \1"),
    (r"Expected a typing\.Literal\[(.*?)\]", r"expected one of \1"),
    (r"\. Got value: ", ", got "),
)
"""Phrases of jsonargparse, as regular expressions, and their replacements."""


def plain(message: str) -> str:
    """Replace jsonargparse's terms in a message: `training.batch: expected v>0, got 0`."""
    for pattern, replacement in PLAIN:
        message = re.sub(pattern, replacement, message)
    return message


def shorten(message: str, limit: int = 600) -> str:
    """Truncate a message to `limit` characters, because libraries quote whole union types."""
    return message if len(message) <= limit else message[:limit] + " …"


def _subclasses(base: type) -> set[type]:
    subclasses: set[type] = set()
    children: list[type] = base.__subclasses__()
    for cls in children:
        subclasses |= {cls} | _subclasses(cls)
    return subclasses


def _parameters(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)


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
    parser.add_argument("--config", action=ActionConfigFile, help="YAML file; may be given several times")
    parser.add_argument(
        "--folder", type=Path, required=True, help="Folder of the run: exported model, logs, training states"
    )
    parser.add_argument(
        "--resume", type=str, default=None, help="Training state of this run to resume: `latest` or a path"
    )
    parser.add_argument(
        "--init", type=str, default=None,
        help="Checkpoint whose weights training starts from, a folder or a hub repository",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="Whether to replace an existing run in the folder"
    )
    parser.add_argument(
        "--variant", type=str, default=None, help="Name of a variant of the config, to be applied"
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
    linked: dict[str, Callable[[ImageData], Any]] = {
        "image_shape": attrgetter("image_shape"), "bins": attrgetter("bins"),
        "attributes": attributes_of_data,
        "mask_classes": lambda data: list(data.mask_classes),
    }  # fmt: skip
    for name, compute in linked.items():
        parser.link_arguments("data", f"model.init_args.{name}", compute, apply_on="instantiate")
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
    if settings.variant not in settings.variants:
        known = ", ".join(settings.variants) or "none"
        fail(f"--variant {settings.variant}: this config's variants are: {known}")
    options = settings.variants[settings.variant]
    # Strings are passed unchanged; null, numbers and lists as JSON, which is a subset of YAML.
    words = {name: v if isinstance(v, str) else json.dumps(v) for name, v in options.items()}
    extra = [f"--{name}={word}" for name, word in words.items()]
    last = max(i for i, word in enumerate(given) if word.startswith("--config"))
    last += 1 if "=" in given[last] else 2
    return parser, parser.parse_args([*given[:last], *extra, *given[last:]])
