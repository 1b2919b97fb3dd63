"""Data sets that checkpoints name: stored with absolute paths, opened only if this user has trained on them.

A checkpoint may come from anywhere. Its description names a class, of this package or of a plugin, with
arguments, and some of them are paths, which could be any: a device without end, a mail folder, an address of
a hub. Those are opened if this user has trained on them here, or asks for them with `--data`.
"""

import importlib
import inspect
import json
import pkgutil
import re
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, get_type_hints

import flows.data
from flows.core.plugins import classes_of
from flows.core.schema import parse
from flows.data.base import ImageData, StreamedData
from flows.errors import UserError
from flows.storage.files import expand, make_folder

__all__ = ["instantiate_data"]

Classes = Sequence[type[ImageData]]
"""Classes that a caller passes, by which a stored data set may be built."""
KNOWN = Path("~/.cache/flows/known-data.txt")
"""File with the data sets that this user has trained on, one SHA-256 per line."""
PREFIX = "flows.data."
MOST = 1_000_000
"""Largest number that the description of a checkpoint may have, such as a number of rendered scenes."""


def absolute_paths(source: dict[str, Any]) -> dict[str, Any]:
    """Stored config of a data set with absolute paths, so that it is found from any folder.

    Args:
        source: `class_path` and `init_args`; data that no config names are returned unchanged.
    """
    if "class_path" not in source:
        return source
    module, _, name = str(source.get("class_path")).rpartition(".")
    cls = getattr(sys.modules.get(module), name, None)
    given = dict(source.get("init_args") or {})
    own = paths_of(source) if class_of(source) else given  # a default is that of every machine
    for argument in getattr(cls, "path_arguments", ()):
        value = own.get(argument)
        if isinstance(value, str) and is_local(value):
            given[argument] = str(expand(value).absolute())
    return {**source, "init_args": given}


def is_local(path: str) -> bool:
    """Whether a text names a file of this machine; a pattern of files counts by the folder it is in."""
    scheme = re.match(r"[a-z]{2,}:", path)
    return not scheme and (expand(path).exists() or ("{" in path and expand(path).parent.is_dir()))


# Known data ---------------------------------------------------------------------------------------


def remember(source: Mapping[str, Any], classes: Classes = ()) -> None:
    """Note a data set that this user trains on; a home that cannot be written to is no error."""
    if not paths_of(source, classes) or is_known(source, classes):
        return
    try:
        path = KNOWN.expanduser()
        make_folder(path.parent)
        with open(path, "a", encoding="utf-8") as opened:
            opened.write(f"{identity(source, classes)}\n")
    except (OSError, RuntimeError):  # a full disk, or no home at all
        return


def is_known(source: Mapping[str, Any], classes: Classes = ()) -> bool:
    """Whether a data set has no paths of its own, or this user has trained on it here."""
    if not paths_of(source, classes):
        return True
    try:
        path = KNOWN.expanduser()
    except RuntimeError:  # this user has no home
        return False
    return path.is_file() and identity(source, classes) in path.read_text(encoding="utf-8").split()


def paths_of(source: Mapping[str, Any], classes: Classes = ()) -> dict[str, Any]:
    """Arguments of a stored data set that are paths or addresses other than the default."""
    cls = class_of(source, classes)
    given = source.get("init_args") or {}
    if cls is None or not isinstance(given, Mapping):
        return {}
    parameters = inspect.signature(cls).parameters
    defaults = {name: parameters[name].default for name in cls.path_arguments if name in parameters}
    return {
        name: given[name]
        for name, default in defaults.items()
        if given.get(name) is not None and str(given[name]) != str(default)
    }


def identity(source: Mapping[str, Any], classes: Classes = ()) -> str:
    """SHA-256 of the class and the paths of a stored data set."""
    cls = class_of(source, classes)
    named = [cls and f"{cls.__module__}.{cls.__qualname__}", paths_of(source, classes)]
    return sha256(json.dumps(named, sort_keys=True, default=str).encode()).hexdigest()


# Classes ------------------------------------------------------------------------------------------


def can_instantiate(source: Any) -> bool:
    """Whether `instantiate_data` accepts the class and the paths of a stored data set."""
    return isinstance(source, dict) and class_of(source) is not None and is_known(source)


def class_of(source: Mapping[str, Any], classes: Classes = ()) -> type[ImageData] | None:
    """Class of a stored data set: one of its name that is passed, of this package or a plugin; else None.

    The last two are concrete and no streams. Nothing is imported because a checkpoint names it.
    """
    module, _, name = str(source.get("class_path")).rpartition(".")
    for own in classes:
        if own.__name__ == name:
            return own
    offered = classes_of(PREFIX.rstrip("."), ImageData).get(name)  # type: ignore[type-abstract]
    named: Any = getattr(sys.modules.get(module), name, None)
    if offered is not None and named is offered:
        return None if issubclass(offered, StreamedData) else offered
    files = {each.name for each in pkgutil.walk_packages(flows.data.__path__, PREFIX)}
    if module not in files | {PREFIX.rstrip(".")}:
        return None
    cls: Any = getattr(importlib.import_module(module), name, None)
    concrete = inspect.isclass(cls) and issubclass(cls, ImageData) and not inspect.isabstract(cls)
    concrete = concrete and not name.startswith("_")  # made of objects, which no checkpoint has
    # A stream is given by addresses of shards, and an address may be a shell command.
    return cls if concrete and not issubclass(cls, StreamedData) else None


def instantiate_data(source: dict[str, Any], classes: Classes = ()) -> ImageData:
    """Instantiate the data set of a stored config, such as `model.description["source"]`.

        data = flows.data.instantiate_data(model.description["source"], classes=[MyPictures])

    Args:
        source: `class_path` and `init_args`.
        classes: Data sets that are defined in a notebook or script. Passing a class is the permission to
            build it; paths are opened only if you have trained on them here.

    Raises:
        UserError: The class is none of this package or a stream, an argument is unknown or of another type,
            or a path is one on which this user has not trained here.
    """
    source = parse(dict[str, Any], source, "the description's source")
    path = str(source.get("class_path"))
    cls = class_of(source, classes)
    if cls is None:
        raise UserError(f"data set {path!r} {_refusal(path)}; choose one with --data")
    given = parse(dict[str, Any], source.get("init_args") or {}, "the description's source.init_args")
    unknown = set(given) - set(inspect.signature(cls).parameters)
    if unknown:
        raise UserError(f"data set {path!r} has no argument {', '.join(sorted(unknown))}")
    hints = get_type_hints(cls.__init__)
    parsed = {name: parse(hints[name], value, f"{path}: {name}") for name, value in given.items()}
    for name, value in parsed.items():
        if isinstance(value, int) and value > MOST:
            raise UserError(f"{path}: {name} is {value:,}, expected at most {MOST:,}; choose one with --data")
    if not is_known(source, classes):
        options = " ".join(f"--data.{name} {value}" for name, value in given.items() if value is not None)
        places = _listed(paths_of(source, classes))
        raise UserError(
            f"the checkpoint names {cls.__name__} with {places}, on which you have not trained here; nothing "
            f"is opened unless --data says so: --data {cls.__name__} {options}"
        )
    return cls(**parsed)


def _refusal(path: str) -> str:
    """Reason why a class is no data set that a checkpoint may name."""
    module, _, name = path.rpartition(".")
    if not path.startswith(PREFIX):
        return "is not one of flows.data, nor a class that is passed (classes=[…])"
    exists = hasattr(sys.modules.get(module), name)
    return "cannot be taken from a checkpoint" if exists else "is none of this release of flows"


def _listed(paths: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in paths.items())
