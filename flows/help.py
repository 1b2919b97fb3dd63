"""Help of the verbs, written ahead: importing a verb takes seconds, showing its help does not.

`python -m flows.help` writes `commands/help.json` from the parsers; a test compares the two.
"""

import json
import os
from importlib.metadata import entry_points
from pathlib import Path

FILE = Path(__file__).parent / "commands" / "help.json"
COLUMNS = 80
"""Width of the texts."""


def written_help(verb: str) -> str | None:
    """Help of a verb such as `steer find`; None if it is not written, or plugins may add classes to it."""
    if any(group.startswith("flows.") for group in entry_points().groups) or not FILE.is_file():
        return None
    texts: dict[str, str] = json.loads(FILE.read_text(encoding="utf-8"))
    return texts.get(verb)


def texts() -> dict[str, str]:
    """Help of every verb, made by its parser."""
    from flows.cli import TRAIN, find_verbs, parser_of
    from flows.config import experiment_parser

    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = str(COLUMNS)
    try:
        parsers = {name: parser_of(name, verb.load()) for name, verb in find_verbs().items()}
        parsers[TRAIN] = experiment_parser(f"flows {TRAIN}")
        return {name: parser.format_help() for name, parser in parsers.items()}
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before


def main() -> None:
    """Write the file."""
    FILE.write_text(json.dumps(texts(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
