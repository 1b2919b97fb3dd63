"""Folder of a run: it is not overwritten by another run, and resumed only with the same settings."""

import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import yaml

from flows.core.schema import parse, unaltered
from flows.data.source import absolute_paths
from flows.errors import UserError
from flows.steering.base import DIRECTIONS_FILE
from flows.storage.files import is_temporary, read_yaml, write_text
from flows.storage.index import CONFIG_FILE
from flows.storage.stored import CARD_FILE, EXPORTING, WEIGHTS_FILE
from flows.storage.trained import DATA_RECORD, METRICS_FILE, REPORT_FILE
from flows.training.checkpoint import PREFIX, states

RUN_CONFIG, FILES_LIST = "config.yaml", "files.txt"
UNLISTED = (
    RUN_CONFIG, METRICS_FILE, REPORT_FILE, CONFIG_FILE, WEIGHTS_FILE, CARD_FILE, DIRECTIONS_FILE,
    "samples.png", "curves.png", "roundtrip.png", "reconstructions.png", "interpolations.png",
)  # fmt: skip
"""Files of runs that have no list, because they are older."""

SESSION = ("resume", "overwrite", "extend", "allow_import")
"""Options of one session, which are not written to the config of the run."""
MAY_CHANGE = {
    "training.workers", "training.log_every", "training.save_every", "training.keep_states",
    "training.memory", "training.anchor_every", "training.guard_every", "training.threads",
    "data.init_args.root", "data.init_args.path", "data.init_args.download",
}  # fmt: skip
"""Settings that may differ when a run is resumed: they affect its results only by rounding."""
WAYS_OUT = {
    "training.images": "--extend true goes on for longer",
    "training.accumulate": "with batch norm it changes more than rounding",
    "training.lr": "--init starts a new run from the weights",
}
"""Name of a setting to what can be done instead of changing it."""


def prepare_folder(
    folder: Path,
    resolved: dict[str, Any],
    resume: str | None,
    state: Path | None,
    overwrite: bool,
    may_change: Collection[str] = (),
) -> list[str]:
    """Create the folder of a run and write its resolved config; returns sentences on what was left in it.

    Args:
        folder: Folder of the run.
        resolved: Resolved config, with every setting.
        resume: Value of `--resume`, or None.
        state: Training state to resume from, or None.
        overwrite: Whether to clear a folder that already holds a run.
        may_change: Settings that may differ in this run, besides MAY_CHANGE.

    Raises:
        UserError: The folder holds a run and neither `resume` nor `overwrite` was given, or files that no
            run wrote, or the run to be resumed was started with other settings, which the message names.
    """
    left: list[str] = []
    if state is not None:
        receipt = state.parent / RUN_CONFIG
        if receipt.is_file():
            with unaltered(receipt):
                before = parse(dict[str, Any], read_yaml(receipt))
            if isinstance(before.get("data"), dict):  # older runs have paths as they were typed
                before["data"] = absolute_paths(before["data"])
            check_same(before, resolved, state.parent, may_change)
    elif holds_run(folder) and (resume is None or (folder / REPORT_FILE).is_file()):
        # Without a state, `--resume latest` starts from the beginning, but not over a finished run.
        if not overwrite:
            raise UserError(
                f"{folder} holds a run already: --resume latest continues it if it has a training state, "
                "--folder names another folder, --overwrite true starts anew"
            )
        clear(folder)
        others = others_in(folder)
        left = [f"left in {folder}, because no run wrote it: {', '.join(others)}"] if others else []
    elif not holds_run(folder) and (others := would_replace(folder)):
        raise UserError(
            f"{folder} holds files that no run wrote and that one would replace ({', '.join(others[:4])}"
            f"{', …' if others[4:] else ''}): name another --folder"
        )
    tidy(folder)

    kept = {key: value for key, value in resolved.items() if key not in SESSION}
    write_receipt(folder, kept)
    return left


def write_receipt(folder: Path, resolved: dict[str, Any]) -> None:
    """Write the resolved config of a run to its folder."""
    text = yaml.safe_dump(resolved, sort_keys=False)
    write_text(folder / RUN_CONFIG, text)


def read_receipt(folder: Path) -> dict[str, Any]:
    """Resolved config of the run in a folder; empty for a model that `fit` has trained without one."""
    path = folder / RUN_CONFIG
    return parse(dict[str, Any], read_yaml(path)) if path.is_file() else {}


def holds_model(folder: Path) -> bool:
    """Whether the folder holds an exported model."""
    return all((folder / name).exists() for name in (CONFIG_FILE, WEIGHTS_FILE))


def holds_run(folder: Path) -> bool:
    """Whether the folder holds a run that has trained, or an exported model; a start that failed is none."""
    metrics = folder / METRICS_FILE
    trained = (metrics.is_file() and metrics.stat().st_size > 0) or bool(states(folder))
    return trained or (folder / WEIGHTS_FILE).exists()


def tidy(folder: Path) -> None:
    """Remove what a run that was killed had not completed: states, exports and files."""
    for pattern in (f".{PREFIX}*", f"{EXPORTING}*"):
        for partial in folder.glob(pattern):
            shutil.rmtree(partial)
    for place in (folder, folder / "samples"):
        for path in place.glob(".*"):
            if is_temporary(path.name):
                path.unlink()


def note_file(folder: Path) -> Callable[[Path], None]:
    """Function that adds the files of a run to the run's own list, before they are written."""
    known: set[str] = set(read_list(folder))

    def note(path: Path) -> None:
        if not path.resolve().is_relative_to(folder.resolve()):
            return
        name = path.resolve().relative_to(folder.resolve()).as_posix()
        if not (folder / FILES_LIST).exists():  # the run is older than the list, new, or was cleared
            known.intersection_update({each for each in known if (folder / each).is_file()})
            with open(folder / FILES_LIST, "w", encoding="utf-8") as opened:
                opened.writelines(f"{each}\n" for each in sorted(known))
        if name not in known and not name.startswith((".", PREFIX)):
            known.add(name)
            with open(folder / FILES_LIST, "a", encoding="utf-8") as opened:
                opened.write(f"{name}\n")

    return note


def read_list(folder: Path) -> list[str]:
    """Names of the files that the run in a folder has written; those of a run before there was a list."""
    path = folder / FILES_LIST
    if path.is_file():
        return path.read_text(encoding="utf-8").splitlines()
    samples = [file.relative_to(folder).as_posix() for file in folder.glob("samples/*-?????????.png")]
    return [*UNLISTED, *samples] if holds_run(folder) or (folder / RUN_CONFIG).is_file() else []


def files_of_run(folder: Path) -> list[Path]:
    """Files that the run in a folder wrote, except for its training states.

    The list may come from elsewhere: links, and names that lead out of the folder, are left out.
    """
    listed = [folder / name for name in read_list(folder) if not Path(name).is_absolute()]
    events = folder.glob("logs/events.out.tfevents.*")
    found = [
        path for path in (*listed, *events, folder / FILES_LIST) if path.is_file() and not path.is_symlink()
    ]
    return [
        path for path in found if path.resolve().is_relative_to(folder.resolve()) and ".." not in path.parts
    ]


def others_in(folder: Path) -> list[str]:
    """Names in the folder of a run, hidden ones apart, that the run has not written."""
    own = {path.relative_to(folder).as_posix() for path in files_of_run(folder)}
    found = [path for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    names = [path.relative_to(folder).as_posix() for path in found]
    return sorted(name for name in names if name not in own and not name.startswith((".", PREFIX)))


def would_replace(folder: Path) -> list[str]:
    """Names in a folder that a run would write over, and that no run wrote."""
    own = {*UNLISTED, DATA_RECORD, FILES_LIST}
    return [name for name in others_in(folder) if name in own or name.split("/")[0] in ("samples", "logs")]


def clear(folder: Path) -> None:
    """Remove the files that the run's own list names, and its states; other files are kept."""
    for state in states(folder):
        shutil.rmtree(state)
    for path in files_of_run(folder):
        path.unlink()
    for name in ("logs", "samples"):
        if (folder / name).is_dir() and not any((folder / name).iterdir()):
            (folder / name).rmdir()


def check_same(
    before: dict[str, Any], now: dict[str, Any], folder: Path, may_change: Collection[str] = ()
) -> None:
    """Raise UserError naming the settings in which two resolved configs differ.

    Those of MAY_CHANGE and of `may_change` may.
    """
    old, new = flatten_settings(before), flatten_settings(now)
    names = [
        name
        for name in sorted(old.keys() | new.keys())
        if name.startswith(("data.", "model.", "objective.", "training."))
        and name not in MAY_CHANGE
        and name not in may_change
        and old.get(name) != new.get(name)
    ]
    if names:
        changes = ", ".join(f"{name} was {old.get(name)!r}, is {new.get(name)!r}" for name in names)
        ways = "; ".join(WAYS_OUT[name] for name in names if name in WAYS_OUT)
        more = f"; {ways}" if ways else ""
        raise UserError(f"--resume: the run in {folder} was started with other settings: {changes}{more}")


def flatten_settings(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flatten nested mappings to one mapping with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            flat |= flatten_settings(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat
