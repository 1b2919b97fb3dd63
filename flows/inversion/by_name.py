"""Inverters by name: a short name with its words, the name of a class, or a config file."""

import inspect
from pathlib import Path
from typing import Any

import flows.inversion
from flows.core.checks import did_you_mean
from flows.core.parser import Parser, import_all, raising
from flows.core.schema import parse
from flows.errors import UserError
from flows.inversion.base import Inverter
from flows.inversion.search import Search
from flows.storage.configs import config_names, find_config
from flows.storage.files import read_yaml, what_is

__all__ = ["make_inverter", "short_names"]

CONFIGS = (".yaml", ".yml")
"""Suffixes of config files."""


def inverter_classes() -> list[type[Inverter]]:
    """All inverters of this package and of installed plugins, in the order of their names."""
    import_all(flows.inversion)
    return sorted(below(Inverter), key=lambda cls: cls.__name__)  # type: ignore[type-abstract]


def below(base: type[Inverter]) -> set[type[Inverter]]:
    """Concrete classes below a class, and the class itself if it is concrete."""
    found = {each for cls in base.__subclasses__() for each in below(cls)}
    return found if inspect.isabstract(base) else found | {base}


def short_names() -> dict[str, type[Inverter]]:
    """Short names of all inverters, with their words: `optimise:SPACE:ALGORITHM`."""
    return {
        ":".join([name, *words[:count]]): cls
        for cls in inverter_classes()
        for name, words in vars(cls).get("short_names", {}).items()
        for count in range(len(words) + 1)
    }


def make_inverter(text: str, search: Search = Search()) -> Inverter:
    """Inverter of a short name such as `exact` or `optimise:w:lbfgs`, of a class, or of a config file.

    Args:
        text: Short name with its words; name of a class, with its defaults; or a YAML file with `class_path`
            and `init_args`.
        search: Settings of the searches that a short name names.

    Raises:
        UserError: There is no such inverter.
    """
    if is_config(text):
        return from_config(parse(dict[str, Any], read_yaml(config_path(text))), text)
    name, *words = text.split(":")
    for cls in inverter_classes():
        known = vars(cls).get("short_names", {}).get(name)
        if known is not None and len(words) <= len(known):
            return cls.from_short(name, dict(zip(known, words, strict=False)), search)
        if cls.__name__ == text:
            return from_config({"class_path": text}, text)
    names = list(short_names())
    classes = ", ".join(cls.__name__ for cls in inverter_classes())
    raise UserError(
        f"--inverters: there is no {text!r}; expected {', '.join(names)}, a class ({classes}) or a YAML "
        f"file.{did_you_mean(name, names)}"
    )


def from_config(config: dict[str, Any], name: str) -> Inverter:
    """Inverter of a config with `class_path` and `init_args`.

    Raises:
        UserError: The config names no inverter, or arguments that it does not have.
    """
    inverter_classes()  # so that the parser knows them
    parser = Parser(prog="flows compare")
    parser.add_argument("inverter", type=Inverter)
    try:
        with raising():
            settings = parser.parse_object({"inverter": config})
    except UserError as error:
        raise UserError(f"--inverters {name}: {str(error).removeprefix('inverter: ')}") from error
    made: Inverter = parser.instantiate(settings).inverter
    return made


def is_config(text: str) -> bool:
    """Whether an inverter is named by a config: a file, or one of flows such as `inversion/projector`."""
    return text.lower().endswith(CONFIGS) or text in config_names()


def config_path(text: str) -> Path:
    """File of a config of an inverter; raises UserError if there is none."""
    try:
        path = find_config(text)
    except UserError as error:
        raise UserError(f"--inverters: {error}") from error
    if state := what_is(path):
        raise UserError(f"--inverters {text} {state}: expected a YAML file")
    return path


def title_of(text: str) -> str:
    """Name of an inverter in tables: its text, or the name of its config file without the suffix."""
    return Path(text).stem if is_config(text) else text
