"""Alternating timing of several functions, so that a slow minute of the machine affects all of them alike."""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)


def alternate(functions: dict[K, Callable[[], Any]], repeats: int, warm: int = 2) -> dict[K, list[float]]:
    """Seconds of each call, in alternating order (A B A B), without the first `warm` rounds.

    Args:
        functions: Functions by name.
        repeats: Number of timed rounds.
        warm: Number of rounds before them that are not timed.
    """
    seconds: dict[K, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + warm):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= warm:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: dict[K, list[float]]) -> dict[K, float]:
    """Median seconds of each function."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratios(seconds: dict[K, list[float]], to: K) -> dict[K, float]:
    """Median, over all rounds, of the ratio of each function's seconds to those of `to`."""
    base = seconds[to]
    return {
        name: statistics.median(value / other for value, other in zip(values, base, strict=True))
        for name, values in seconds.items()
    }
