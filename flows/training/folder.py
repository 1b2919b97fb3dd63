"""The folder of a run: refused where it would overwrite another, and never continued as something else."""

import importlib
import inspect
import shutil
from pathlib import Path
from typing import Any

import yaml

from flows.data.base import ImageData
from flows.files import write_atomically
from flows.training.checkpoint import states
from flows.training.log import METRICS_FILE

RUN_CONFIG = "config.yaml"

MAY_CHANGE = {
    "training.workers", "training.log_every", "training.validate_every", "training.validation_images",
    "training.save_every", "training.keep_states", "training.accumulate",
    "data.init_args.root", "data.init_args.download",
}  # fmt: skip
"""Settings that a resumed run may have different: they do not change what it computes."""


def prepare_folder(folder: Path, resolved: str, resume: str | None, overwrite: bool) -> None:
    """Make the folder of a run and write its resolved config, the run's receipt.

    Args:
        folder: of the run.
        resolved: the config in YAML, every setting spelt out.
        resume: the --resume of the command line.
        overwrite: empty a folder that holds a run already.

    Raises:
        ValueError: the folder holds a run and neither resume nor overwrite was given, or the run that is to
            be resumed was started with other settings; the message names them.
    """
    receipt = folder / RUN_CONFIG
    if resume is not None and receipt.is_file():
        check_same(yaml.safe_load(receipt.read_text()), yaml.safe_load(resolved), folder)
    elif holds_run(folder) and resume is None:
        if not overwrite:
            raise ValueError(
                f"{folder} holds a run already: --resume latest continues it, --folder names another folder, "
                "--overwrite true starts anew"
            )
        clear(folder)
    write_atomically(receipt, lambda path: path.write_text(resolved))


def holds_run(folder: Path) -> bool:
    """Whether a run or an exported model stands there."""
    return any((folder / name).exists() for name in (RUN_CONFIG, METRICS_FILE, "model.safetensors"))


def clear(folder: Path) -> None:
    """Remove what a run wrote; files of other names stay."""
    for state in states(folder):
        shutil.rmtree(state)
    for name in ("logs", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)
    names = (METRICS_FILE, RUN_CONFIG, "config.json", "model.safetensors", "README.md", "report.json")
    for name in names:
        (folder / name).unlink(missing_ok=True)


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise ValueError naming the settings in which two resolved configs differ beyond MAY_CHANGE."""
    old, new = flatten(before), flatten(now)
    names = [
        name
        for name in sorted(old.keys() | new.keys())
        if name.startswith(("data.", "model.", "training."))
        and name not in MAY_CHANGE
        and old.get(name) != new.get(name)
    ]
    if names:
        changes = ", ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
        raise ValueError(f"--resume: the run in {folder} was started with other settings: {changes}")


def flatten(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def instantiate_data(source: dict[str, Any]) -> ImageData:
    """The data set of a stored config: a class of flows.data and its arguments, nothing else.

    Raises:
        ValueError: the class is not one of flows.data. A config may come from a stranger, and importing
            whatever it names would be running their code.
    """
    module, _, name = source["class_path"].rpartition(".")
    if not module.startswith("flows.data."):
        raise ValueError(f"data set {source['class_path']!r} is not one of flows.data: name one with --data")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"this release of flows has no data set {source['class_path']!r}") from error
    hints = inspect.signature(cls).parameters
    arguments = {
        key: Path(value) if hints[key].annotation is Path and value is not None else value
        for key, value in source.get("init_args", {}).items()
    }
    return cls(**arguments)
