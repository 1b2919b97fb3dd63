"""Training states: everything needed to resume a run as if it had never stopped."""

import json
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.distributed as dist
from safetensors import SafetensorError

from flows.core.schema import check_version, parse, read_json, unaltered
from flows.errors import DISK_ERRORS, CheckpointError, UserError
from flows.storage.files import file_digest, write_text
from flows.storage.stored import check_digest

if TYPE_CHECKING:
    from accelerate import Accelerator  # importing takes long, and is needed for training only

STATE_VERSION = 1
MANIFEST = "manifest.json"
PREFIX = "state-"
ROOM = 2**16
"""Free bytes below which a disk counts as full: torch fails at a part of what it writes at a time."""


class Progress:
    """Progress of a run, saved by Accelerate together with its tensors.

    Attributes:
        images: Number of images shown so far.
        steps: Number of optimiser steps so far.
        seconds: Training time so far in seconds, over all sessions.
        best: Lowest score of an evaluation, infinite before the first.
        best_at: Number of images shown at the evaluation with the best score, on every rank.
        looked: Number of images shown at the last evaluation.
        lines: Number of lines of the log so far.
        threads: Number of threads of torch's operations; 0 if it is not known.
        fallback: Memory mode that the guard switched to, or "".
    """

    def __init__(self) -> None:
        self.images = 0
        self.steps = 0
        self.seconds = 0.0
        self.best = float("inf")
        self.best_at = 0
        self.looked = 0
        self.lines = 0
        self.threads = 0
        self.fallback = ""

    def state_dict(self) -> dict[str, Any]:
        """Return plain numbers and strings, as Accelerate's weights-only loading requires."""
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore the values of `state_dict`; states without `looked` were written after an evaluation."""
        vars(self).update({"looked": state["images"], "lines": sys.maxsize}, **state)


def save_state(accelerator: "Accelerator", folder: Path, images: int, keep: int) -> Path:
    """Write the state `folder/state-<images>` atomically and keep the newest `keep` states.

    Every rank must call this. The files are written to a temporary sibling folder and listed with their
    SHA-256 in a manifest; then the folder is renamed.
    """
    final = folder / f"{PREFIX}{images:012d}"
    temporary = folder / f".{final.name}.partial"
    if accelerator.is_main_process:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
    accelerator.wait_for_everyone()
    accelerator.save_state(str(temporary))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        files = sorted(path for path in temporary.rglob("*") if path.is_file())
        digests = {str(path.relative_to(temporary)): file_digest(path) for path in files}
        manifest = json.dumps({"state_version": STATE_VERSION, "files": digests}, indent=2)
        write_text(temporary / MANIFEST, manifest)
        aside = folder / f".{final.name}.aside"
        if final.exists():
            final.rename(aside)
        temporary.rename(final)
        shutil.rmtree(aside, ignore_errors=True)
        # A state with more images belongs to a run that was abandoned when an older state was resumed.
        later = [state for state in states(folder) if state.name > final.name]
        for old in [*later, *states(folder)[: -keep - len(later)]]:
            shutil.rmtree(old)
    accelerator.wait_for_everyone()
    return final


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Context that writes in a run's folder: a full disk becomes a UserError, and no partial state stays.

    The libraries that write have different exceptions for it, most without the name of a file.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        if not is_full(folder, error):
            raise
        remove_partials(folder)
        if dist.is_available() and dist.is_initialized():  # another rank may be about to write there
            time.sleep(1)
            remove_partials(folder)
        whole = states(folder)
        newest = f"the newest whole state is {whole[-1].name}" if whole else "there is no whole state yet"
        raise UserError(
            f"the disk of {folder} is full; {newest}: make room, and --resume latest continues from there"
        ) from error


def remove_partials(folder: Path) -> None:
    """Remove the states that were not completed."""
    for partial in folder.glob(f".{PREFIX}*.partial"):
        shutil.rmtree(partial, ignore_errors=True)


def is_full(folder: Path, error: Exception) -> bool:
    """Whether an exception was raised because the disk of a folder is full."""
    if isinstance(error, OSError):
        return error.errno in DISK_ERRORS
    return folder.exists() and shutil.disk_usage(folder).free < ROOM


def states(folder: Path) -> list[Path]:
    """Complete training states of a run, oldest first."""
    return sorted(path for path in folder.glob(f"{PREFIX}*") if path.is_dir())


@dataclass(frozen=True)
class Manifest:
    """Contents of a state's list of files: name to SHA-256."""

    state_version: int
    files: dict[str, str]


def check_state(state: Path) -> None:
    """Raise CheckpointError, naming the file, unless the state is complete and unaltered."""
    manifest = state / MANIFEST
    if not manifest.is_file():
        raise CheckpointError(f"{manifest} is missing: {state} is not a training state, or was cut off")
    with unaltered(manifest):
        record = parse(Manifest, read_json(manifest.read_bytes()))
    check_version(manifest, "state", record.state_version, STATE_VERSION, oldest=STATE_VERSION)
    for name, digest in record.files.items():
        check_digest(state / name, digest)


def find_state(folder: Path, resume: str | None) -> tuple[Path | None, str]:
    """Training state for `--resume`, and a note on what was passed over.

    `latest` is the newest whole state of the run, and None if the run has none yet. A damaged one is passed
    over, because a job that is queued again has nobody to name another.

    Raises:
        CheckpointError: A state given by its path is missing or damaged, or all states of the run are.
    """
    if resume is None:
        return None, ""
    if resume != "latest":
        check_given_state(Path(resume))
        return Path(resume), ""
    faults = []
    for state in reversed(states(folder)):
        try:
            check_state(state)
        except CheckpointError as error:
            faults.append(f"{state.name} is damaged ({error})")
            continue
        return state, f"{'; '.join(faults)}: going on from {state.name}" if faults else ""
    if faults:
        raise CheckpointError(f"{'; '.join(faults)}; there is no whole state, --overwrite true starts anew")
    return None, ""


def check_given_state(state: Path) -> None:
    """Raise CheckpointError, with the newest whole state beside it, unless the state is complete."""
    try:
        check_state(state)
    except CheckpointError as error:
        for other in reversed(states(state.parent)):
            if other != state and is_whole(other):
                raise CheckpointError(f"{error}; the newest whole state beside it is {other.name}") from error
        raise


def is_whole(state: Path) -> bool:
    """Whether a state is complete and unaltered."""
    try:
        check_state(state)
    except CheckpointError:
        return False
    return True
