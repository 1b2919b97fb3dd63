"""Packages of the extras in `pyproject.toml`, which a plain installation does not have."""

import importlib
from importlib.metadata import PackageNotFoundError, distribution, requires
from types import ModuleType

from flows.core.checks import some_of
from flows.errors import missing_extra

DISTRIBUTION = "exact-flows"
TRAIN = {"matplotlib": "matplotlib", "rich": "rich", "sklearn": "scikit-learn", "tqdm": "tqdm"}
"""Modules of the extra `train`, with the names of their packages."""


def optional(module: str) -> ModuleType:
    """Import a module of the extra `train`, when it is used.

    Raises:
        DataMissing: The package is not installed.
    """
    package = module.partition(".")[0]
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != package:
            raise
        raise missing_extra(f"{TRAIN[package]} is not installed", "train") from error


def check_extra(extra: str, what: str) -> None:
    """Check before the work that all packages of an extra are installed.

    Args:
        extra: Name of the extra.
        what: Name of what needs the extra, for example "flows evaluate".

    Raises:
        DataMissing: Packages are missing; the message names them and the command that installs them.
    """
    missing = [name for name in packages_of(extra) if not is_installed(name)]
    if missing:
        raise missing_extra(f"{what} needs {some_of(missing)}", extra)


def packages_of(extra: str) -> list[str]:
    """Names of the packages of an extra; none if flows runs from a folder without being installed."""
    from packaging.requirements import Requirement  # here, because `flows --help` does without it

    try:
        stated = [Requirement(text) for text in requires(DISTRIBUTION) or []]
    except PackageNotFoundError:
        return []
    return [each.name for each in stated if each.marker and each.marker.evaluate({"extra": extra})]


def is_installed(package: str) -> bool:
    """Whether a distribution of this name is installed."""
    try:
        distribution(package)
    except PackageNotFoundError:
        return False
    return True
