"""`flows` command, with one verb per file of flows.commands; a folder is a group of verbs."""

import importlib
import inspect
import pkgutil
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, get_args, get_origin

import docstring_parser

import flows.commands
from flows.core.bounds import plain
from flows.core.extras import check_extra
from flows.core.options import flattened
from flows.core.parser import ALLOW, ConfigFile, Parser, add_import_option, classes_of, import_all
from flows.errors import EXIT_CODES, EXIT_USER, reported
from flows.help import written_help

Command = Callable[..., None]
CONFIG = "config"
FORMER = {"dissect": {"share": "level"}}
"""Former names of options, by verb and option; accepted with a warning, typed or in configs."""


@dataclass(frozen=True)
class Verb:
    """A verb, known without importing its file.

    Attributes:
        module: Name of the module.
        summary: First line of the docstring.
    """

    module: str
    summary: str

    def load(self) -> Command:
        """Import the function."""
        command: Command = getattr(importlib.import_module(self.module), self.module.rsplit(".", 1)[-1])
        return flattened(command)


TRAIN = "train"
"""Verb whose options are those of a training, as in train.py, and not of a function."""
BARE = {
    "codes", "completion", "configs", "decode", "encode", "interpolate", "models", "render", "sample",
    "studio",
}  # fmt: skip
"""Verbs that do without the extra `train`; the page asks for its own."""
READ_CONFIGS = {"export"}
"""Verbs that read the config of a run, which may name classes."""
HELPERS = {"common", "given", "groups"}
"""Files of flows/commands that are no verbs."""


@cache
def find_verbs(package: ModuleType = flows.commands) -> dict[str, Verb]:
    """Find all verbs by name: files of `package` that define a function with the name of the file.

    A folder is a group of verbs: `steer find` is the function `find` of `steer/find.py`. The files are read
    and not imported, because most import more than the verb that is run.
    """
    verbs: dict[str, Verb] = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        name = module.name.rsplit(".", 1)[-1]
        if module.ispkg:
            inner = find_verbs(importlib.import_module(module.name))
            verbs |= {f"{name} {verb}": found for verb, found in inner.items()}
            continue
        text = (Path(package.__path__[0]) / f"{name}.py").read_text(encoding="utf-8")
        if function := re.search(rf'^def {name}\(.*?\) -> None:\n    """([^"\n]*)', text, re.M | re.S):
            verbs[name] = Verb(module.name, function[1])
        elif name not in HELPERS:
            raise RuntimeError(
                f"{module.name} needs a function {name}(…) -> None whose body is a docstring first"
            )
    return verbs


def commands() -> dict[str, Command]:
    """Import all verbs: name to function."""
    return {name: verb.load() for name, verb in find_verbs().items()}


def make_parser(typed: Sequence[str] | None = None, with_training: bool = False) -> Parser:
    """Create the parser of all verbs.

    Args:
        typed: Words of the command line. Only the verb that they begin with is imported and has its options.
            None imports all verbs.
        with_training: Whether `train` has its options, too, which import every model and data set.
    """
    summary = "Invert, sample, steer and dissect with trained models."
    parser = Parser(prog="flows", description=summary, epilog=EXIT_CODES)
    parser.add_argument("--version", action="version", version=f"flows {flows.__version__}")
    verbs = {"": parser.add_subcommands(dest="verb")}
    training = training_parser(f"flows {TRAIN}") if with_training else Parser(prog=f"flows {TRAIN}")
    verbs[""].add_subcommand(TRAIN, training, help="Train a model with a config")
    for name, verb in find_verbs().items():
        group, _, last = name.rpartition(" ")
        if group not in verbs:
            description = inspect.getdoc(importlib.import_module(f"flows.commands.{group}")) or ""
            outer = Parser(prog=f"flows {group}", description=description, epilog=EXIT_CODES)
            verbs[""].add_subcommand(group, outer, help=description.split("\n", 1)[0])
            verbs[group] = outer.add_subcommands(dest="verb")
        words = name.split()
        chosen = typed is None or list(typed[: len(words)]) == words
        inner = parser_of(name, verb.load()) if chosen else Parser(prog=f"flows {name}")
        verbs[group].add_subcommand(last, inner, help=verb.summary)
        inner.prog = f"flows {name}"  # without jsonargparse's [options] between the words
    return parser


def training_parser(program: str) -> Parser:
    """Parser of a training."""
    from flows.config import experiment_parser  # imports torch, every model and every data set

    return experiment_parser(program)


def parser_of(name: str, function: Command) -> Parser:
    """Create the parser of one verb from the signature and the docstring of its function."""
    docstring = inspect.getdoc(function) or ""
    summary = docstring.split("\n\nArgs:", 1)[0]
    parser = Parser(prog=f"flows {name}", description=summary, epilog=EXIT_CODES)
    texts = {param.arg_name: param.description for param in docstring_parser.parse(docstring).params}
    parser.former = {former: option for option, former in FORMER.get(name, {}).items()}
    taken: set[str | int] = set()
    parameters = inspect.signature(function).parameters.values()
    if name in READ_CONFIGS or any(classes_of(parameter.annotation) for parameter in parameters):
        add_import_option(parser)
    for parameter in parameters:
        for kind in classes_of(parameter.annotation):
            import_all(sys.modules[kind.__module__.rpartition(".")[0]])
        required = parameter.default is parameter.empty
        words = word_list(parameter.annotation)
        # A signature cannot express "one or more"; argparse can. Required files are positional, other lists
        # are options.
        if words is Path and required:
            parser.add_argument(parameter.name, nargs="+", type=Path, help=texts.get(parameter.name))
        elif words is not None:
            default = None if required else parameter.default
            parser.add_argument(
                f"--{parameter.name}",
                nargs="+",
                type=words,
                required=required,
                default=default,
                help=texts.get(parameter.name),
            )
        elif required:
            parser.add_argument(parameter.name, type=parameter.annotation, help=texts.get(parameter.name))
        else:
            continue
        taken.add(parameter.name)
    parser.add_function_arguments(function, skip=taken)
    parser.add_argument(f"--{CONFIG}", action=ConfigFile, help="YAML file with any of these options")
    return parser


def word_list(annotation: Any) -> Any:
    """Element type X of `list[X]` or `list[X] | None`; None for other annotations."""
    if isinstance(annotation, UnionType):
        annotation = next(member for member in get_args(annotation) if member is not NoneType)
    return get_args(annotation)[0] if get_origin(annotation) is list else None


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Exit codes: 0 success, 2 user error, 130 interrupted, 143 terminated, 1 bug."""
    typed = sys.argv[1:] if arguments is None else arguments
    with reported():
        if typed[-1:] in (["-h"], ["--help"]) and (text := written_help(" ".join(typed[:-1]))):
            print(text, end="")
            raise SystemExit(0)
        if typed[:1] == [TRAIN]:
            from flows.run import main as train  # imports torch and every model

            train(typed[1:], f"flows {TRAIN}")
            return
        parser = make_parser(typed)
        given = parser.parse_args(typed)
        name = given.verb
        if name is None:
            parser.print_help()
            raise SystemExit(EXIT_USER)
        values = parser.instantiate(given)[name]
        if "verb" in values:
            name, values = f"{name} {values.verb}", values[values.verb]
        if name not in BARE:
            check_extra("train", f"flows {name}")
        options = {key: plain(value) for key, value in vars(values).items() if key not in (CONFIG, ALLOW)}
        find_verbs()[name].load()(**options)


if __name__ == "__main__":
    main()
