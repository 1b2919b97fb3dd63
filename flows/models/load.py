"""Find the class that a checkpoint names, and load it."""

import importlib
import inspect
import pkgutil
from pathlib import Path

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

import flows.models
from flows.models.base import CONFIG_FILE, CheckpointError, LatentModel, read_config


def model_types() -> dict[str, type[LatentModel]]:
    """Every concrete model of the package by its class name, found by importing the files of flows.models."""
    found: dict[str, type[LatentModel]] = {}
    for module in pkgutil.iter_modules(flows.models.__path__, "flows.models."):
        for cls in vars(importlib.import_module(module.name)).values():
            if inspect.isclass(cls) and issubclass(cls, LatentModel) and not inspect.isabstract(cls):
                found[cls.__name__] = cls
    return found


def load_model(path_or_repo: str | Path, map_location: str = "cpu") -> LatentModel:
    """See `flows.load`."""
    config = read_config(_config_file(path_or_repo))
    types = model_types()
    if config["model_type"] not in types:
        known = ", ".join(sorted(types))
        raise CheckpointError(
            f"{path_or_repo} holds a {config['model_type']!r}, which this release of flows does not know; "
            f"it knows {known}"
        )
    local = Path(path_or_repo).expanduser()
    source = local if local.exists() else path_or_repo
    return types[config["model_type"]].from_pretrained(source, map_location=str(map_location))


def _config_file(path_or_repo: str | Path) -> Path:
    """Where config.json is, fetched from the hub unless `path_or_repo` is or looks like a path."""
    path = Path(path_or_repo).expanduser()
    if path.exists():
        return path / CONFIG_FILE
    looks_like_repo = str(path_or_repo).count("/") == 1 and not str(path_or_repo).startswith((".", "~", "/"))
    if not looks_like_repo or path.parent.is_dir():
        raise CheckpointError(f"there is no folder {path_or_repo}: expected one written by train.py")
    try:
        return Path(hf_hub_download(str(path_or_repo), CONFIG_FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise CheckpointError(
            f"{path_or_repo} is neither a folder here nor a repository that the hub returned ({error})"
        ) from error
