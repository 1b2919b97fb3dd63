"""Boundaries of the shipped scenes models by space: accuracies, leakage before and after conditioning.

    python benchmarks/steering.py --output benchmarks/results      # ten minutes on two cores

A boundary (InterFaceGAN) is found for every factor in every space: in those that have an encoder from real
training images and their truth, elsewhere from samples as the predictor sees them. Each is moved along on
codes that it was not found on, real test images where there is an encoder, and is then made to leave alone
the one of the others that it changes most: that one's boundary, and the mean gradient of its score. Writes
steering.json and prints the tables of docs/steering.md.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flows.commands.common import print_table, write_json
from flows.editing.codes import encoded_test
from flows.models.base import LatentModel
from flows.opening import data_of, load_predictor, open_model
from flows.steering.base import Direction
from flows.steering.boundary import Boundary, condition
from flows.steering.evaluate import Rescoring, rescore
from flows.steering.method import Task
from flows.steering.score_gradient import ScoreGradient

FACTORS = (
    "daylight", "lamp_on", "wood", "window", "category: bedroom", "category: living room",
    "category: kitchen", "category: church",
)  # fmt: skip
PLACES = (
    ("scenes-lia", "w"), ("scenes-stylegan", "w"), ("scenes-glow", "z"), ("scenes-lia", "z"),
    ("scenes-stylegan", "z"),
)  # fmt: skip
ALPHA = 2.0


@dataclass(frozen=True)
class Place:
    """A model's space with boundaries and what moving along them does.

    Attributes:
        model: name of the checkpoint.
        space: of its codes.
        source: of what was learned from, `images` or `samples`.
        directions: one for each factor.
        matrix: of changes.
        conditioned: for each factor: what it changed most of the others, its leakage before, and after
            conditioning on its boundary and on the gradient of its score.
    """

    model: str
    space: str
    source: str
    directions: list[Direction]
    matrix: Rescoring
    conditioned: dict[str, tuple[str, float, float, float]]

    @property
    def told(self) -> str:
        return f"{self.model}, {self.space}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model, "space": self.space, "source": self.source,
            "accuracies": {each.name: each.evidence for each in self.directions},
            "effects": {each.name: self.matrix.own(each.name) for each in self.directions},
            "conditioned": {
                name: {"on": on, "leakage": before, "by_boundary": boundary, "by_gradient": gradient}
                for name, (on, before, boundary, gradient) in self.conditioned.items()
            },
        }  # fmt: skip


def measure(checkpoint: Path, space: str, images: int, samples: int, moved: int) -> Place:
    """Boundaries of one space, found on so many images or samples and moved along on `moved` other codes."""
    model = open_model(str(checkpoint), None)
    judge = load_predictor(str(checkpoint.parent / "scenes-predictor"), model)
    encodes = model.guarantee[space] != "none"
    n = images if encodes else samples
    task = Task(
        model, space, list(FACTORS), None if encodes else judge, data_of(model, None) if encodes else None, n
    )
    directions = Boundary().find(task)
    gradients = {each.name: each for each in ScoreGradient().find(replace(task, predictor=judge))}
    codes, labels = held_out(model, space, moved)
    matrix = rescore(model, judge, directions, codes, ALPHA, labels)
    conditioned = {}
    for each in directions:
        other = most_changed(matrix, each, directions)
        alone = [condition(each, [taken], codes) for taken in (other, gradients[other.name])]
        after = [
            rescore(model, judge, [one], codes, ALPHA, labels).leakage(one.name, other.name) for one in alone
        ]
        conditioned[each.name] = (other.name, matrix.leakage(each.name, other.name), after[0], after[1])
    return Place(checkpoint.name, space, "images" if encodes else "samples", directions, matrix, conditioned)


def held_out(model: LatentModel, space: str, n: int) -> tuple[Tensor, Tensor | None]:
    """Codes of test images, or samples of a seed of their own."""
    if model.guarantee[space] != "none":
        return encoded_test(model, n, space)
    random = torch.Generator().manual_seed(1)
    return model.sample_codes(n, space, random), model.classes_in_turn(n)


def most_changed(matrix: Rescoring, direction: Direction, directions: list[Direction]) -> Direction:
    """The direction of another attribute whose score this one changes most."""
    attribute = matrix.scores[matrix.column(direction.name)].attribute
    others = [each for each in directions if matrix.scores[matrix.column(each.name)].attribute != attribute]
    return max(others, key=lambda each: matrix.leakage(direction.name, each.name))


def main() -> None:
    """Print the tables and write steering.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--images", type=int, default=8000, help="that boundaries are found on")
    parser.add_argument("--samples", type=int, default=20_000, help="likewise, where there is no encoder")
    parser.add_argument("--moved", type=int, default=500, help="codes moved along them")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    places = []
    for name, space in PLACES:
        places.append(measure(given.checkpoints / name, space, given.images, given.samples, given.moved))
        print(f"{name}, {space}: done", flush=True)
    head = ["factor", *(each.told for each in places)]
    evidence = {place.told: {each.name: each.evidence for each in place.directions} for place in places}
    print("\nConfident / all, in percent (all: mean of the accuracies on what is so and on what is not):\n")
    print_table(
        head,
        [
            [
                factor,
                *(
                    f"{100 * told[factor]['validation_accuracy']:.0f} / "
                    f"{100 * told[factor]['all_accuracy']:.0f} "
                    f"({100 * told[factor]['all_balanced_accuracy']:.0f})"
                    for told in evidence.values()
                ),
            ]
            for factor in FACTORS
        ],
    )
    print(
        f"\nChange by {ALPHA:g} σ, in spreads; what else changes most: before, and after conditioning on its "
        "boundary, on its gradient:\n"
    )
    print_table(
        head,
        [
            [
                factor,
                *(
                    f"{each.matrix.own(factor):.2f}; {each.conditioned[factor][0]} "
                    + " → ".join(f"{leakage:.2f}" for leakage in each.conditioned[factor][1:])
                    for each in places
                ),
            ]
            for factor in FACTORS
        ],
    )
    write_json(given.output / "steering.json", {"places": [each.as_dict() for each in places]})


if __name__ == "__main__":
    main()
