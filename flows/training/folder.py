"""The folder of a run: refused where it would overwrite another, and never continued as something else."""

import importlib
import inspect
import shutil
from pathlib import Path
from typing import Any, get_args

import yaml

from flows.data.base import ImageData, StreamedData
from flows.errors import UserError
from flows.files import read_yaml, write_atomically
from flows.stored import CARD_FILE, CONFIG_FILE, WEIGHTS_FILE
from flows.training.checkpoint import PREFIX, states
from flows.training.log import METRICS_FILE

RUN_CONFIG, REPORT_FILE = "config.yaml", "report.json"
DIRECTIONS_FILE = "directions.safetensors"
PICTURES = ("samples.png", "curves.png", "roundtrip.png", "reconstructions.png", "interpolations.png")

MAY_CHANGE = {
    "training.workers", "training.log_every", "training.save_every", "training.keep_states",
    "training.memory", "training.anchor_every", "training.guard_every",
    "data.init_args.root", "data.init_args.path", "data.init_args.download",
}  # fmt: skip
"""Settings that a resumed run may have different: they change nothing of what it computes but rounding."""


def prepare_folder(
    folder: Path, resolved: dict[str, Any], resume: str | None, state: Path | None, overwrite: bool
) -> None:
    """Make the folder of a run and write its resolved config, the run's receipt.

    Args:
        folder: of the run.
        resolved: the config, every setting spelt out.
        resume: the --resume of the command line.
        state: the training state it means, None where there is none yet.
        overwrite: empty a folder that holds a run already.

    Raises:
        ValueError: the folder holds a run and neither resume nor overwrite was given, or the run that is to
            be resumed was started with other settings; the message names them.
    """
    if state is not None:
        receipt = state.parent / RUN_CONFIG
        if receipt.is_file():
            check_same(read_yaml(receipt), resolved, state.parent)
    elif holds_run(folder) and (resume is None or (folder / REPORT_FILE).is_file()):
        # Without a state, `--resume latest` starts from the beginning, but not over a finished run.
        if not overwrite:
            raise UserError(
                f"{folder} holds a run already: --resume latest continues one that has a training state, "
                "--folder names another folder, --overwrite true starts anew"
            )
        clear(folder)
    for partial in folder.glob(f".{PREFIX}*"):
        shutil.rmtree(partial)
    # How this session was started is no setting of the run: a run of the receipt must not resume or wipe.
    kept = {key: value for key, value in resolved.items() if key not in ("resume", "overwrite")}
    write_receipt(folder, kept)


def write_receipt(folder: Path, resolved: dict[str, Any]) -> None:
    """Write the resolved config of a run to its folder."""
    text = yaml.safe_dump(resolved, sort_keys=False)
    write_atomically(folder / RUN_CONFIG, lambda path: path.write_text(text))


def holds_run(folder: Path) -> bool:
    """Whether a run or an exported model stands there."""
    return any((folder / name).exists() for name in (RUN_CONFIG, METRICS_FILE, WEIGHTS_FILE))


def clear(folder: Path) -> None:
    """Remove what a run wrote; files of other names stay."""
    for state in states(folder):
        shutil.rmtree(state)
    for name in ("logs", "samples"):
        shutil.rmtree(folder / name, ignore_errors=True)
    exported = (CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, REPORT_FILE, DIRECTIONS_FILE)
    for name in (METRICS_FILE, RUN_CONFIG, *exported, *PICTURES):
        (folder / name).unlink(missing_ok=True)


def check_same(before: dict[str, Any], now: dict[str, Any], folder: Path) -> None:
    """Raise ValueError naming the settings in which two resolved configs differ beyond MAY_CHANGE."""
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
    """Nested mappings to one with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= flatten_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def instantiate_data(source: dict[str, Any]) -> ImageData:
    """The data set of a stored config: a class of flows.data and its arguments, nothing else.

    Raises:
        ValueError: the class is not a data set of flows.data. A config may come from a stranger, and
            importing whatever it names would be running their code.
    """
    path = str(source.get("class_path"))
    module, _, name = path.rpartition(".")
    if not module.startswith("flows.data."):
        raise UserError(f"data set {path!r} is not one of flows.data: name one with --data")
    try:
        cls = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError) as error:
        raise UserError(f"this release of flows has no data set {path!r}") from error
    if not (inspect.isclass(cls) and issubclass(cls, ImageData)) or issubclass(cls, StreamedData):
        # A stream is named by addresses, and a shard's may be a command to run.
        raise UserError(f"data set {path!r} is not taken from a checkpoint: name one with --data")
    given = source.get("init_args") or {}
    hints = inspect.signature(cls).parameters
    unknown = set(given) - set(hints)
    if unknown:
        raise UserError(f"data set {path!r} has no argument {', '.join(sorted(unknown))}")
    paths = {key for key, hint in hints.items() if Path in (hint.annotation, *get_args(hint.annotation))}
    return cls(**{k: Path(v) if k in paths and v is not None else v for k, v in given.items()})
