"""Classes of other installed packages, which they offer by entry points.

A package of one's own adds to its `pyproject.toml`

    [project.entry-points."flows.models"]
    mine = "mypackage.mine"

and the classes of the module `mypackage.mine` are known by their names wherever those of `flows.models` are:
in configs, in checkpoints, on the command line and on the page. The same holds for the groups `flows.data`,
`flows.inversion`, `flows.steering`, `flows.semantics` and `flows.training.objectives`. Installing a package
is the permission to import it; a checkpoint names classes and never a package.
"""

import importlib.metadata
import inspect
import sys
from functools import cache
from types import ModuleType
from typing import Any, TypeVar

import jsonargparse

T = TypeVar("T")


@cache
def modules_of(group: str) -> tuple[ModuleType, ...]:
    """Import the modules that installed packages offer under a group, such as `flows.models`.

    A module that cannot be imported is left out, with a line on standard error.
    """
    found = []
    for entry in importlib.metadata.entry_points(group=group):
        try:
            offered: Any = entry.load()
            module = offered if inspect.ismodule(offered) else sys.modules[offered.__module__]
        except (Exception, SystemExit) as error:  # whatever another package raises must not end every command
            message = f"{type(error).__name__}: {error}"
            print(f"warning: {group} {entry.name!r} ({entry.value}) is left out: {message}", file=sys.stderr)
            continue
        jsonargparse.set_parsing_settings(import_path_allowlist=[module.__name__.partition(".")[0]])
        found.append(module)
    return tuple(found)


def classes_of(group: str, base: type[T]) -> dict[str, type[T]]:
    """Concrete classes of type `base` that installed packages offer under a group, by name."""
    return {
        cls.__name__: cls
        for module in modules_of(group)
        for cls in vars(module).values()
        if inspect.isclass(cls)
        and issubclass(cls, base)
        and not inspect.isabstract(cls)
        and not cls.__module__.startswith("flows.")
    }
