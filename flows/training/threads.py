"""Number of threads of a run: what the process may use, less what others use, the same when it is resumed."""

import os
from pathlib import Path
from typing import NamedTuple

import psutil

from flows.errors import UserError

QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))
"""Files below `CGROUP` with the quota of CPU time and its period, in versions 2 and 1 of control groups."""
CGROUP = Path("/sys/fs/cgroup")


class Busy(NamedTuple):
    """CPU seconds until a moment, of this process and of all together.

    Attributes:
        own: CPU seconds of this process.
        total: CPU seconds of all processes.
        time: Seconds of all CPUs, busy or idle.
    """

    own: float
    total: float
    time: float

    @classmethod
    def now(cls) -> "Busy":
        """Return the seconds until now."""
        own, total = psutil.Process().cpu_times(), psutil.cpu_times()
        working = ("user", "nice", "system", "irq", "softirq", "steal")
        used = sum(getattr(total, name, 0.0) for name in working)
        return cls(own.user + own.system, used, used + total.idle + getattr(total, "iowait", 0.0))


def allowed_cpus() -> int:
    """Number of CPUs that this process may use: by affinity, and by the quota of a container."""
    process = psutil.Process()
    cpus = len(process.cpu_affinity()) if hasattr(process, "cpu_affinity") else os.cpu_count() or 1
    quota = _quota()
    return cpus if quota is None else max(1, min(cpus, int(quota)))


def _quota() -> float | None:
    """CPUs of a container's quota, or None if there is none."""
    for names in QUOTAS:
        try:
            words = " ".join((CGROUP / name).read_text() for name in names).split()
            quota, period = map(float, words)
        except (OSError, ValueError):  # no such file, or "max"
            continue
        if quota > 0:
            return quota / period
    return None


def busy_cpus(since: Busy) -> float:
    """Number of CPUs that other processes have kept busy since a moment."""
    now = Busy.now()
    seconds = (now.time - since.time) / (os.cpu_count() or 1)
    if seconds < 0.1:
        return 0.0
    others = max(0.0, (now.total - since.total) - (now.own - since.own)) / seconds
    return min(others, float(os.cpu_count() or 1))  # clocks of the kernel are rounded


def choose_threads(given: int | None, since: Busy) -> tuple[int | None, str]:
    """Number of threads, None for torch's own, and a sentence where it is fewer than the CPUs.

    Args:
        given: Value of `training.threads`.
        since: Moment from which on other processes are measured.

    Raises:
        UserError: More threads than CPUs were given.
    """
    if given is not None and given > (os.cpu_count() or 1):
        raise UserError(f"training.threads: expected at most {os.cpu_count()}, the CPUs here, got {given}")
    if given is not None or "OMP_NUM_THREADS" in os.environ:
        return given, ""
    cpus, busy = allowed_cpus(), busy_cpus(since)
    free = round((os.cpu_count() or 1) - busy)
    threads = max(1, min(cpus, free))
    if threads == cpus:
        return threads, ""
    return threads, (
        f"{_threads(threads)}, because other processes keep {busy:.1f} of {os.cpu_count()} CPUs busy; "
        "--training.threads sets another number"
    )


def _threads(n: int) -> str:
    return f"{n} thread{'s' if n > 1 else ''}"
