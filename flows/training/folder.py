"""Folder of a run: it is not overwritten by another run, and resumed only with the same settings."""

import importlib
import inspect
import pkgutil
import shutil
from pathlib import Path
from typing import Any, get_type_hints

import yaml

import flows.data
from flows.data.base import ImageData, StreamedData
from flows.errors import UserError
from flows.files import read_yaml, write_atomically
from flows.schema import parse, unaltered
from flows.steering.base import DIRECTIONS_FILE
from flows.stored import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from flows.training.checkpoint import PREFIX, states
from flows.training.log import METRICS_FILE

RUN_CONFIG, REPORT_FILE = "config.yaml", "report.json"
PICTURES = ("samples.png", "curves.png", "roundtrip.png", "reconstructions.png", "interpolations.png")

MAY_CHANGE = {
    "training.workers", "training.log_every", "training.save_every", "training.keep_states",
    "training.memory", "training.anchor_every", "training.guard_every",
    "data.init_args.root", "data.init_args.path", "data.init_args.download",
}  # fmt: skip
"""Settings that may differ when a run is resumed: they affect its results only by rounding."""


def prepare_folder(
    folder: Path, resolved: dict[str, Any], resume: str | None, state: Path | None, overwrite: bool
) -> None:
    """Create the folder of a run and write its resolved config.

    Args:
        folder: Folder of the run.
        resolved: Resolved config, with every setting.
        resume: Value of `--resume`, or None.
        state: Training state to resume from, or None.
        overwrite: Whether to clear a folder that already holds a run.

    Raises:
        UserError: The folder holds a run and neither `resume` nor `overwrite` was given, or the run to be
            resumed was started with other settings, which the message names.
    """
    if state is not None:
        receipt = state.parent / RUN_CONFIG
        if receipt.is_file():
            with unaltered(receipt):
                before = parse(dict[str, Any], read_yaml(receipt))
            check_same(before, resolved, state.parent)
    elif holds_run(folder) and (resume is None or (folder / REPORT_FILE).is_file()):
        # Without a state, `--resume latest` starts from the beginning, but not over a finished run.
        if not overwrite:
            raise UserError(
                f"{folder} holds a run already: --resume latest continues it if it has a training state, "
                "--folder names another folder, --overwrite true starts anew"
            )
        clear(folder)
    for partial in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(partial)
    # `resume` and `overwrite` belong to this session: running the written config must do neither.
    kept = {key: value for key, value in resolved.items() if key not in ("resume", "overwrite")}
    write_receipt(folder, kept)


def write_receipt(folder: Path, resolved: dict[str, Any]) -> None:
    """Write the resolved config of a run to its folder."""
    text = yaml.safe_dump(resolved, sort_keys=False)
    write_atomically(folder / RUN_CONFIG, lambda path: path.write_text(text))


def holds_model(folder: Path) -> bool:
    """Whether the folder holds an exported model."""
    return all((folder / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE))


def holds_run(folder: Path) -> bool:
    """Whether the folder holds a run that has trained, or an exported model; a start that failed is none."""
    metrics = folder / METRICS_FILE
    trained = (metrics.is_file() and metrics.stat().st_size > 0) or bool(states(folder))
    return trained or (folder / WEIGHTS_FILE).exists()


def clear(folder: Path) -> None:
    """Remove the files that a run writes; other files are kept."""
    for state in states(folder):
        shutil.rmtree(state)
    for name in ("logs", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)
    exported = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, REPORT_FILE, DIRECTIONS_FILE)
    for name in (METRICS_FILE, RUN_CONFIG, *exported, *PICTURES):
        (folder / name).unlink(missing_ok=True)


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise UserError naming the settings in which two resolved configs differ, except for MAY_CHANGE."""
    old, new = flatten_settings(before), flatten_settings(now)
    names = [
        name
        for name in sorted(old.keys() | new.keys())
        if name.startswith(("data.", "model.", "objective.", "training."))
        and name not in MAY_CHANGE
        and old.get(name) != new.get(name)
    ]
    if names:
        changes = ", ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
        raise UserError(f"--resume: the run in {folder} was started with other settings: {changes}")


def flatten_settings(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= flatten_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def can_instantiate(source: Any) -> bool:
    """Whether the data set of a stored config is one that `instantiate_data` accepts by its class."""
    module, _, name = str(source.get("class_path")).rpartition(".") if isinstance(source, dict) else ("",) * 3
    if module not in {each.name for each in pkgutil.walk_packages(flows.data.__path__, "flows.data.")}:
        return False
    cls: Any = getattr(importlib.import_module(module), name, None)
    return is_storable(cls)


def is_storable(cls: Any) -> bool:
    """Whether this is the class of a data set that a checkpoint may name: concrete, and no stream."""
    concrete = inspect.isclass(cls) and issubclass(cls, ImageData) and not inspect.isabstract(cls)
    return concrete and not issubclass(cls, StreamedData)


def instantiate_data(source: dict[str, Any]) -> ImageData:
    """Instantiate the data set of a stored config, which must be a class of flows.data and not a stream.

    A config may come from an untrusted source; importing arbitrary classes would run that source's code.

    Raises:
        UserError: The class is not such a data set, or an argument is unknown.
    """
    source = parse(dict[str, Any], source, "the description's source")
    path = str(source.get("class_path"))
    module, _, name = path.rpartition(".")
    if not module.startswith("flows.data."):
        raise UserError(f"data set {path!r} is not one of flows.data; choose one with --data")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"this release of flows has no data set {path!r}") from error
    if not is_storable(cls):
        # A stream is given by addresses of shards, and an address may be a shell command.
        raise UserError(f"data set {path!r} cannot be taken from a checkpoint; choose one with --data")
    given = parse(dict[str, Any], source.get("init_args") or {}, "the description's source.init_args")
    unknown = set(given) - set(inspect.signature(cls).parameters)
    if unknown:
        raise UserError(f"data set {path!r} has no argument {', '.join(sorted(unknown))}")
    hints = get_type_hints(cls.__init__)
    return cls(**{name: parse(hints[name], value, f"{path}: {name}") for name, value in given.items()})
