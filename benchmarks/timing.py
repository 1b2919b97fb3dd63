"""Timing of alternatives in turns, so that a slow minute of the machine falls on all of them alike."""

import statistics
import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

K = TypeVar("K", bound=Hashable)


def alternate(functions: dict[K, Callable[[], Any]], repeats: int, warm: int = 2) -> dict[K, list[float]]:
    """Seconds of each call, A B A B, without the first `warm` rounds; compare those of a round."""
    seconds: dict[K, list[float]] = {name: [] for name in functions}
    for repeat in range(repeats + warm):
        for name, function in functions.items():
            start = time.perf_counter()
            function()
            if repeat >= warm:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def medians(seconds: dict[K, list[float]]) -> dict[K, float]:
    """The median of each."""
    return {name: statistics.median(values) for name, values in seconds.items()}


def ratios(seconds: dict[K, list[float]], to: K) -> dict[K, float]:
    """The median over all rounds of each alternative's seconds divided by those of `to`."""
    base = seconds[to]
    return {
        name: statistics.median(value / other for value, other in zip(values, base, strict=True))
        for name, values in seconds.items()
    }
