"""`flows` command, with one verb per file of flows.commands; a folder is a group of verbs."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any, get_args, get_origin

import docstring_parser

import flows.commands
from flows.config import ConfigFile, Parser, discover
from flows.errors import EXIT_CODES, EXIT_USER, reported

Command = Callable[..., None]
CONFIG = "config"
FORMER = {"dissect": {"share": "level"}}
"""Former names of options, by verb and option; accepted with a warning, typed or in configs."""


def commands(package: ModuleType = flows.commands) -> dict[str, Command]:
    """Return all verbs by name: files of `package` that define a function with the name of the file.

    A folder is a group of verbs: `steer find` is the function `find` of `steer/find.py`.
    """
    verbs: dict[str, Command] = {}
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        name, loaded = module.name.rsplit(".", 1)[-1], importlib.import_module(module.name)
        if module.ispkg:
            verbs |= {f"{name} {verb}": function for verb, function in commands(loaded).items()}
        elif callable(function := getattr(loaded, name, None)):
            verbs[name] = function
    return verbs


def make_parser() -> Parser:
    """Create the parser of all verbs."""
    discover()
    summary = "Invert, sample, steer and dissect with trained models."
    parser = Parser(prog="flows", description=summary, epilog=EXIT_CODES)
    verbs = {"": parser.add_subcommands(dest="verb")}
    for name, function in commands().items():
        group, _, last = name.rpartition(" ")
        if group not in verbs:
            description = inspect.getdoc(importlib.import_module(f"flows.commands.{group}")) or ""
            outer = Parser(prog=f"flows {group}", description=description, epilog=EXIT_CODES)
            verbs[""].add_subcommand(group, outer, help=description.split("\n", 1)[0])
            verbs[group] = outer.add_subcommands(dest="verb")
        help_line = (inspect.getdoc(function) or "").split("\n", 1)[0]
        verbs[group].add_subcommand(last, parser_of(name, function), help=help_line)
    return parser


def parser_of(name: str, function: Command) -> Parser:
    """Create the parser of one verb from the signature and the docstring of its function."""
    docstring = inspect.getdoc(function) or ""
    summary = docstring.split("\n\nArgs:", 1)[0]
    parser = Parser(prog=f"flows {name}", description=summary, epilog=EXIT_CODES)
    texts = {param.arg_name: param.description for param in docstring_parser.parse(docstring).params}
    parser.former = {former: option for option, former in FORMER.get(name, {}).items()}
    taken: set[str | int] = set()
    for parameter in inspect.signature(function).parameters.values():
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
    """Run one verb. Exit codes: 0 success, 2 user error, 130 interrupted, 1 bug."""
    parser = make_parser()
    with reported():
        given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
        name = given.verb
        if name is None:
            parser.print_help()
            raise SystemExit(EXIT_USER)
        values = parser.instantiate(given)[name]
        if "verb" in values:
            name, values = f"{name} {values.verb}", values[values.verb]
        commands()[name](**{key: value for key, value in vars(values).items() if key != CONFIG})


if __name__ == "__main__":
    main()
