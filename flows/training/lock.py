"""Lock of a run's folder: two processes never train in one folder, and a lock that was left is taken over."""

import json
import os
import platform
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from flows.core.schema import parse, read_json
from flows.errors import UserError
from flows.storage.files import make_folder

LOCK_FILE = ".running.json"
BEAT_SECONDS, STALE_SECONDS = 20.0, 120.0
"""Interval at which a run touches its lock, and age at which that of another machine counts as left."""


@dataclass(frozen=True)
class Holder:
    """Process that holds a lock.

    Attributes:
        host: Name of the machine.
        process: Number of the process.
        started: Time of its start, because numbers are used again.
    """

    host: str
    process: int
    started: float

    @classmethod
    def here(cls) -> "Holder":
        """Return this process."""
        return cls(platform.node(), os.getpid(), psutil.Process().create_time())

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}"

    def has_ended(self) -> bool:
        """Whether there is no process of this number on this machine."""
        return not psutil.pid_exists(self.process)

    def is_another(self) -> bool:
        """Whether the process of this number began at another time, unless the clock was set since."""
        try:
            return abs(psutil.Process(self.process).create_time() - self.started) > 1
        except psutil.Error:  # it has just ended, or is somebody else's
            return False


@contextmanager
def locked(folder: Path) -> Iterator[str]:
    """Context in which this process alone trains in a folder; the value says whose lock was taken over.

    The lock is a file that is created only if it does not exist, which holds on network file systems too. A
    process of this machine that has ended has left its lock, and so has one of another machine that has not
    touched it for two minutes.

    Raises:
        UserError: Another process trains in the folder.
    """
    make_folder(folder)
    path, own = folder / LOCK_FILE, Holder.here()
    note = ""
    if not _create(path, own):
        note = _take_over(path)
        if not _create(path, own):
            raise UserError(f"{folder}: another process has just begun to train here; name another --folder")
    ended = threading.Event()
    beat = threading.Thread(target=_touch, args=(path, own, ended), daemon=True)
    beat.start()
    try:
        yield note
    finally:
        ended.set()
        beat.join()
        if _is_own(path, own):
            path.unlink(missing_ok=True)


def _create(path: Path, own: Holder) -> bool:
    """Create the lock; returns whether there was none."""
    try:
        opened = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    with os.fdopen(opened, "w") as file:
        file.write(json.dumps(asdict(own)))
    return True


def _take_over(path: Path) -> str:
    """Remove a lock that was left, and return a sentence on it; raises UserError if its process is there."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:  # its process has just ended
        return ""
    holder = _holder(content)
    other = holder is not None and holder.host != platform.node()
    if holder is None or other:
        left = _age(path) > STALE_SECONDS
    else:
        left = holder.has_ended() or (holder.is_another() and _age(path) > 2 * BEAT_SECONDS)
    if not left:
        way = f"; if it is gone, its lock is free {STALE_SECONDS:.0f} s after its end" if other else ""
        raise UserError(
            f"{path.parent}: {holder or 'another process'} trains here: wait for its end, or name another "
            f"--folder{way}"
        )
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        path.rename(aside)
    except FileNotFoundError:  # another process was faster
        return ""
    if aside.read_bytes() != content:  # another process was faster, and this is its lock
        aside.rename(path)
        return ""
    aside.unlink()
    return f"the lock of {holder or 'a process'}, which is gone, was taken over"


def _is_own(path: Path, own: Holder) -> bool:
    """Whether a lock is still that of this process: a run that slept too long may have lost it."""
    try:
        return _holder(path.read_bytes()) == own
    except OSError:
        return False


def _holder(content: bytes) -> Holder | None:
    """Process that a lock names; None if the lock was cut off while it was written."""
    try:
        holder: Holder = parse(Holder, read_json(content))
    except UserError:
        return None
    return holder


def _age(path: Path) -> float:
    """Seconds since a file was touched, by the clock of its file system."""
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f"{LOCK_FILE}.") as fresh:
        return os.stat(fresh.name).st_mtime - path.stat().st_mtime


def _touch(path: Path, own: Holder, ended: threading.Event) -> None:
    """Touch the lock until the run ends."""
    while not ended.wait(BEAT_SECONDS):
        try:
            if _is_own(path, own):
                os.utime(path)
        except OSError:  # the folder was removed, or its file server does not answer
            continue
