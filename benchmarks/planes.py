"""Planted planes: how near the boundaries that are found lie to them, and whether their intervals hold.

    python benchmarks/planes.py      # one minute on one core

Codes of 32 dimensions are normal, and labels are the sides of a random plane, without or with noise on the
distance. Writes docs/results/planes.json and prints its table: angle between the normals, trials within 5°,
error of the bias, trials in which the 95 % interval of the bias holds the true one, and accuracies by
cross-validation and on the codes themselves.
"""

import argparse
import math
import time
from functools import partial
from typing import Any

import torch
from saving import new_parser, publish

from flows.display.results import Made, Result, Shown
from flows.models.codes import Codes
from flows.semantics.base import Score
from flows.steering.boundary import Boundary
from flows.steering.mean_difference import MeanDifference
from flows.steering.method import Labelled
from flows.steering.survey import Survey

SIZE = 32
SCORE = Score("it", "it", "attribute", True, 0.0, 1.0)
METHODS: dict[str, Labelled] = {"boundary": Boundary(), "mean difference": MeanDifference()}
NOISES = (0.0, 0.5)


def trial(method: Labelled, noise: float, n: int, seed: int) -> dict[str, float]:
    """Find one planted plane.

    Args:
        method: Method that finds it.
        noise: Std of the noise on the distances that labels are the signs of; the codes have a std of 1.
        n: Number of codes.
        seed: Seed of plane, codes and noise.
    """
    random = torch.Generator().manual_seed(seed)
    normal = torch.randn(SIZE, generator=random).double()
    normal, bias = normal / normal.norm(), 0.6 * float(torch.randn((), generator=random))
    codes = torch.randn(n, SIZE, generator=random).double()
    distance = codes @ normal + bias
    labels = distance + noise * torch.randn(n, generator=random) > 0
    found = method.one(Survey(Codes(codes.float(), "z"), labels.float()[:, None], (SCORE,)), "it")
    vector = found.vector.double()
    low, high = found.bias_interval or (-math.inf, math.inf)
    return {
        "angle": math.degrees(math.acos(min(1.0, float(vector @ normal)))),
        "bias_error": found.bias - bias,
        "half_interval": (high - low) / 2,
        "held": float(low <= bias <= high),
        "accuracy": found.evidence["accuracy"],
        "seen": float((((codes @ vector + found.bias) > 0) == labels).double().mean()),
    }


def trials(name: str, noise: float, codes: int, count: int) -> dict[str, Any]:
    """Find several planted planes by one method.

    Args:
        name: Name of the method.
        noise: Std of the noise on the distances.
        codes: Number of codes per trial.
        count: Number of trials.
    """
    begun = time.perf_counter()
    found = [trial(METHODS[name], noise, codes, seed) for seed in range(count)]
    column = {key: torch.tensor([each[key] for each in found]).double() for key in found[0]}
    return {
        "method": name,
        "noise": noise,
        "trials": count,
        "codes": codes,
        "angle": float(column["angle"].mean()),
        "largest_angle": float(column["angle"].max()),
        "within_5_degrees": int((column["angle"] <= 5).sum()),
        "bias_error_std": float(column["bias_error"].std()),
        "half_interval": float(column["half_interval"].mean()),
        "held": int(column["held"].sum()),
        "accuracy": float(column["accuracy"].mean()),
        "accuracy_on_codes_seen": float(column["seen"].mean()),
        "seconds": (time.perf_counter() - begun) / count,
    }


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Trials of all methods, without and with noise."""
    torch.set_num_threads(1)
    found = []
    for name in METHODS:
        for noise in NOISES:
            found.append(trials(name, noise, given.codes, given.trials))
            print(f"{name}, noise {noise:g}: done", flush=True)
    return {"trials": found}


def result(data: dict[str, Any], made: Made) -> Result:
    """Table with one row per method and noise."""
    columns = [
        "method",
        "noise",
        "angle to the true normal, mean (largest)",
        "within 5°",
        "std of the bias's error",
        "95 % interval, half",
        "holds the true bias",
        "accuracy, cross-validated",
        "on the codes seen",
    ]
    rows = [
        [
            each["method"],
            f"{each['noise']:g}",
            f"{each['angle']:.1f}° ({each['largest_angle']:.1f}°)",
            f"{each['within_5_degrees']} of {each['trials']}",
            f"{each['bias_error_std']:.3f}",
            f"{each['half_interval']:.3f}",
            f"{each['held']} of {each['trials']}",
            f"{each['accuracy']:.3f}",
            f"{each['accuracy_on_codes_seen']:.3f}",
        ]
        for each in data["trials"]
    ]
    first = data["trials"][0]
    text = (
        f"Planted planes in {SIZE} dimensions with {first['codes']:,} codes, {first['trials']} trials each; "
        "noise is added to the distances that labels are the signs of, in std of the codes."
    )
    tables = {"table": Shown(columns, rows, names=[0])}
    return Result("Accuracy of hyperplanes", made, tables, text, data=data)


def main() -> None:
    """Find all planes; write planes.json and print its table."""
    parser = new_parser(__doc__)
    parser.add_argument("--codes", type=int, default=2000)
    parser.add_argument("--trials", type=int, default=200)
    given = parser.parse_args()
    publish(given, "planes", result, partial(measure, given))


if __name__ == "__main__":
    main()
