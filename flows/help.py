"""Help of the verbs and completion for shells, written ahead, because importing a verb takes seconds.

`python -m flows.help` writes `commands/help.json` and `commands/completions/` from the parsers; tests compare
them.
"""

import json
import os
from argparse import Action
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from flows.commands.completion import Shell, script_file

if TYPE_CHECKING:
    from flows.core.parser import Parser

FILE = Path(__file__).parent / "commands" / "help.json"
SHELLS: tuple[Shell, ...] = get_args(Shell)
COLUMNS = 80
"""Width of the texts."""
OF_MODELS = ("checkpoint", "models", "predictor", "segmenter", "download", "init")
"""Options whose values are folders of models or names of the index."""
OF_CONFIGS = ("config", "show")


def written_help(verb: str) -> str | None:
    """Help of a verb such as `steer find`; None if it is not written, or plugins may add classes to it."""
    if any(group.startswith("flows.") for group in entry_points().groups) or not FILE.is_file():
        return None
    texts: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    return texts.get(verb)


def texts() -> dict[str, str]:
    """Help of every verb, made by its parser."""
    with width(COLUMNS):
        return {name: parser.format_help() for name, parser in parsers().items()}


def parsers() -> "dict[str, Parser]":
    """Parser of every verb, and of the training."""
    from flows.cli import TRAIN, find_verbs, parser_of, training_parser

    found = {name: parser_of(name, verb.load()) for name, verb in find_verbs().items()}
    return {**found, TRAIN: training_parser(f"flows {TRAIN}")}


@contextmanager
def width(columns: int) -> Iterator[None]:
    """Context in which argparse writes texts of this width."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(columns)
    try:
        yield
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def scripts() -> dict[str, str]:
    """Script of each shell, made by shtab from the parsers."""
    import shtab

    from flows.cli import make_parser

    parser = make_parser(with_training=True)
    for each in inner_parsers(parser):
        mark(each)
    with width(COLUMNS):
        return {shell: shtab.complete(parser, shell, preamble=preambles()) for shell in SHELLS}


def inner_parsers(parser: "Parser") -> "Iterator[Parser]":
    """All parsers of verbs in a parser of groups and verbs."""
    yield parser
    for action in parser._actions:
        for inner in getattr(action, "_name_parser_map", {}).values():
            yield from inner_parsers(inner)


def mark(parser: "Parser") -> None:
    """Give each option what completes it in shtab: models, configs, files, or a choice."""
    import shtab

    from flows.core.bounds import choices_of
    from flows.core.parser import type_of

    for action in parser._actions:
        kind = type_of(action)
        if action.dest in OF_MODELS:
            complete_by(action, dict.fromkeys(SHELLS, "_flows_models"))
        elif action.dest in OF_CONFIGS:
            complete_by(action, dict.fromkeys(SHELLS, "_flows_configs"))
        elif kind is bool:
            action.choices = ["true", "false"]
        elif kind is not None and (choices := choices_of(kind)):
            action.choices = sorted(choices)
        elif "Path" in str(kind):
            complete_by(action, shtab.FILE)


def complete_by(action: Action, functions: Mapping[str, Any]) -> None:
    """Give an option the functions that complete it, by shell."""
    vars(action)["complete"] = functions


def preambles() -> Any:
    """Functions of each shell that complete names and files."""
    from flows.storage.configs import config_names
    from flows.storage.index import read_index

    known = {"models": " ".join(read_index()), "configs": " ".join(config_names())}
    bash = "\n".join(
        f'_flows_{name}() {{ compgen -W "{words}" -- "$1"; compgen -f -- "$1"; }}'
        for name, words in known.items()
    )
    zsh = "\n".join(f"_flows_{name}() {{ compadd -- {words}; _files; }}" for name, words in known.items())
    return {"bash": bash, "zsh": zsh}


def main() -> None:
    """Write the files."""
    FILE.write_text(json.dumps(texts(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    for shell, text in scripts().items():
        script_file(shell).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
