"""The `flows` command: one verb per file of flows.commands."""

import importlib
import inspect
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path

import flows.commands
from flows.config import USER_ERRORS, Parser, discover, fail

Command = Callable[..., None]


def commands() -> dict[str, Command]:
    """Name to function, for every file of flows.commands that has a function of its own name."""
    found = {}
    for module in pkgutil.iter_modules(flows.commands.__path__, "flows.commands."):
        name = module.name.rsplit(".", 1)[-1]
        function = getattr(importlib.import_module(module.name), name, None)
        if callable(function):
            found[name] = function
    return found


def make_parser() -> Parser:
    """The parser of all verbs."""
    discover()
    parser = Parser(prog="flows", description="Use a trained invertible model.")
    verbs = parser.add_subcommands(dest="verb")
    for name, function in commands().items():
        told = (inspect.getdoc(function) or "").split("\n\nArgs:", 1)[0]
        help_line = told.split("\n", 1)[0]
        sub = Parser(prog=f"flows {name}", description=told)
        for parameter in inspect.signature(function).parameters.values():
            if parameter.default is not parameter.empty:
                continue
            # A signature cannot say "one or more words"; argparse can. Files stand by themselves, several
            # lists of words need their names.
            if parameter.annotation == list[Path]:
                sub.add_argument(parameter.name, nargs="+", type=Path, help="one or more files")
            elif parameter.annotation == list[str]:
                sub.add_argument(f"--{parameter.name}", nargs="+", type=str, required=True, help="see above")
            else:
                sub.add_argument(parameter.name, type=parameter.annotation)
        taken: set[str | int] = {
            p.name for p in inspect.signature(function).parameters.values() if p.default is p.empty
        }
        sub.add_function_arguments(function, skip=taken)
        verbs.add_subcommand(name, sub, help=help_line)
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Run one verb. Exit codes: 0 done, 2 the user's mistake, 1 a bug."""
    parser = make_parser()
    given = parser.parse_args(sys.argv[1:] if arguments is None else arguments)
    if given.verb is None:
        parser.print_help()
        raise SystemExit(2)
    try:
        values = parser.instantiate(given)[given.verb]
        commands()[given.verb](**vars(values))
    except USER_ERRORS as error:
        fail(str(error))


if __name__ == "__main__":
    main()
