"""Configs and command lines: typed signatures, short class names, and errors a person can use."""

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
    """Import every model, data set and objective: a config may then name their classes without a path."""
    for package in (flows.data, flows.models, flows.semantics, objectives):
        for module in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


class Parser(ArgumentParser):
    """jsonargparse's parser with one-line errors that name the nearest valid word; exit code 2."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if os.environ.get("FLOWS_DEBUG") and ex is not None:
            raise ex
        text = " ".join(line.strip() for line in str(message).splitlines() if line.strip())
        unknown = re.search(r'key "([\w.]+)".*dot import path string: (\w+)', text)
        if unknown:
            text = f"{unknown[1]}: there is no class named '{unknown[2]}'."
        fail(shorten(plain(text)) + self.suggestion(text))

    def instantiate(self, *given: Any, **options: Any) -> Namespace:
        """As jsonargparse's; an exception of a constructor leaves as it was raised.

        The parser would wrap it in a list of the union's members and the namespace of all arguments.
        """
        options.setdefault("instantiators", [(_construct, object, True)])
        try:
            return super().instantiate(*given, **options)
        except _Raised as raised:
            raise raised.error from None

    def suggestion(self, message: str) -> str:
        """` Did you mean …?` for the word that `message` complains about, or nothing."""
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
        """Every option, class and constructor argument that a config may name."""
        options = {action.dest for action in self._actions}
        options |= {str(choice) for action in self._actions for choice in action.choices or ()}
        classes = [*_subclasses(ImageData), *_subclasses(StoredModule), *_subclasses(Objective)]
        named = {cls.__name__ for cls in classes}
        mentioned = [cls for cls in classes if re.search(rf"\b{cls.__name__}\b", message)]
        arguments = {name for cls in mentioned or classes for name in _parameters(cls)}
        return options | {option.rsplit(".", 1)[-1] for option in options} | named | arguments


class _Raised(BaseException):
    """An exception of a constructor, carried through jsonargparse, which catches every `Exception`."""

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
"""jsonargparse's phrases, as regular expressions, and what a user reads instead."""


def plain(message: str) -> str:
    """A message of the parser without its own terms: `training.batch: expected v>0, got 0`."""
    for pattern, replacement in PLAIN:
        message = re.sub(pattern, replacement, message)
    return message


def shorten(message: str, limit: int = 600) -> str:
    """At most `limit` characters of a message; libraries quote whole union types."""
    return message if len(message) <= limit else message[:limit] + " …"


def _subclasses(base: type) -> set[type]:
    found: set[type] = set()
    children: list[type] = base.__subclasses__()
    for cls in children:
        found |= {cls} | _subclasses(cls)
    return found


def _parameters(cls: type) -> list[str]:
    return list(inspect.signature(cls).parameters)


def attributes_of_data(data: ImageData) -> list[dict[str, Any]]:
    """What a judge of this data set tells, as plain values.

    Links are worked out for every model, and the classes of a folder are known only where it is: without its
    files the data set tells nothing yet.
    """
    try:
        return json_attributes(data.all_attributes())
    except DataMissing:
        return []


def experiment_parser() -> Parser:
    """The parser of train.py: one experiment, from config files and the command line."""
    discover()
    parser = Parser(
        prog="train.py",
        description="Train a model. Later options and configs override earlier ones.",
        epilog=EXIT_CODES,
        default_env=False,
    )
    parser.add_argument("--config", action=ActionConfigFile, help="a YAML file; may be given several times")
    parser.add_argument(
        "--folder", type=Path, required=True, help="of the run: exported model, logs, training states"
    )
    parser.add_argument(
        "--resume", type=str, default=None, help="`latest`, or the path of a training state of this run"
    )
    parser.add_argument(
        "--init", type=str, default=None,
        help="folder or hub repository of a checkpoint whose weights training starts from",
    )  # fmt: skip
    parser.add_argument(
        "--overwrite", type=bool, default=False, help="start anew in a folder that holds a run already"
    )
    parser.add_argument(
        "--variant", type=str, default=None, help="name of one of the config's variants to apply"
    )
    parser.add_argument(
        "--variants", type=dict[str, dict[str, Any]], default={}, help="name to dotted option to value"
    )
    parser.add_subclass_arguments(ImageData, "data", required=True, help="the data set")
    parser.add_subclass_arguments(StoredModule, "model", required=True, help="the model")
    parser.add_argument(
        "--objective", type=Objective, default={"class_path": "Likelihood"}, help="what it is trained for"
    )
    parser.add_class_arguments(Training, "training")
    # Shape and grey levels of a model are those of its data, and so is what a judge tells: changing the data
    # line changes all of them.
    linked: dict[str, Callable[[ImageData], Any]] = {
        "image_shape": attrgetter("image_shape"), "bins": attrgetter("bins"),
        "attributes": attributes_of_data,
        "mask_classes": lambda data: list(data.mask_classes),
    }  # fmt: skip
    for name, of in linked.items():
        parser.link_arguments("data", f"model.init_args.{name}", of, apply_on="instantiate")
    return parser


def resolve(parser: Parser, settings: Namespace) -> dict[str, Any]:
    """Every setting spelt out as plain values, those that are null too: a default may be something else."""
    resolved: dict[str, Any] = yaml.safe_load(parser.dump(settings, skip_unset=False))
    return resolved


def parse_experiment(arguments: list[str] | None = None) -> tuple[Parser, Namespace]:
    """Parse train.py's command line; without any --config, `configs/digits/glow.yaml` is taken.

    The options of the chosen variant stand between the config and the command line.
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
    # Strings as they are; null, numbers and lists as YAML, which JSON is part of.
    words = {name: v if isinstance(v, str) else json.dumps(v) for name, v in options.items()}
    extra = [f"--{name}={word}" for name, word in words.items()]
    last = max(i for i, word in enumerate(given) if word.startswith("--config"))
    last += 1 if "=" in given[last] else 2
    return parser, parser.parse_args([*given[:last], *extra, *given[last:]])
