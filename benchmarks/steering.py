"""Boundaries in the spaces of the included models of scenes: accuracies and leakages.

    python benchmarks/steering.py --output benchmarks/results      # ten minutes on two cores

A boundary (InterFaceGAN) is found for every factor in every space: from encoded training images and their
ground truth in spaces with an encoder, otherwise from samples scored by the predictor. Codes that it was not
found on (test images, if there is an encoder) are moved along it. The boundary is then made orthogonal to the
most affected other factor, in two ways: to its boundary, and to the mean gradient of its score. Writes
steering.json and prints the tables of docs/steering.md.
"""

import argparse
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.commands.common import write_json
from flows.display.table import Table
from flows.models.base import LatentModel
from flows.models.codes import Codes
from flows.opening import data_of, first_test, load_predictor, open_model
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
    """Boundaries in one space of a model, and the effect of moves along them.

    Attributes:
        model: Name of the checkpoint.
        space: Name of the latent space.
        source: Source of the codes that the boundaries were found on, `images` or `samples`.
        directions: Boundaries, one per factor.
        matrix: Changes of all scores.
        conditioned: Factor to the most affected other factor, and its leakage: without conditioning,
            conditioned on its boundary, and conditioned on the gradient of its score.
    """

    model: str
    space: str
    source: str
    directions: list[Direction]
    matrix: Rescoring
    conditioned: dict[str, tuple[str, float, float, float]]

    @property
    def label(self) -> str:
        """Heading of the column in tables."""
        return f"{self.model}, {self.space}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
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
    """Find boundaries in one space of a model and move codes along them.

    Args:
        checkpoint: Folder of the model.
        space: Name of the latent space.
        images: Number of images that boundaries are found on, in a space with an encoder.
        samples: Number of samples that boundaries are found on, in a space without an encoder.
        moved: Number of other codes that are moved.
    """
    model = open_model(str(checkpoint), None)
    predictor = load_predictor(str(checkpoint.parent / "scenes-predictor"), model)
    encodes = model.check_space(space).encodes
    n = images if encodes else samples
    task = Task(
        model,
        space,
        list(FACTORS),
        None if encodes else predictor,
        data_of(model, None) if encodes else None,
        n,
    )
    directions = Boundary().find(task)
    gradients = {each.name: each for each in ScoreGradient().find(replace(task, predictor=predictor))}
    codes = held_out(model, space, moved)
    matrix = rescore(model, predictor, directions, codes, ALPHA)
    conditioned = {}
    for each in directions:
        other = most_changed(matrix, each, directions)
        fixed = [condition(each, [taken], codes) for taken in (other, gradients[other.name])]
        after = [
            rescore(model, predictor, [one], codes, ALPHA).leakage(one.name, other.name) for one in fixed
        ]
        conditioned[each.name] = (other.name, matrix.leakage(each.name, other.name), after[0], after[1])
    return Place(checkpoint.name, space, "images" if encodes else "samples", directions, matrix, conditioned)


def held_out(model: LatentModel, space: str, n: int) -> Codes:
    """Codes of test images or, without an encoder, of samples with another seed than the survey."""
    if model.check_space(space).encodes:
        batch = first_test(model, n)
        return model.encode_bytes(batch.images, space, batch.labels)
    return model.sample(n, space, seed=1)


def most_changed(matrix: Rescoring, direction: Direction, directions: list[Direction]) -> Direction:
    """Direction of another attribute, the one whose score this direction changes most."""
    attribute = matrix.scores[matrix.column(direction.name)].attribute
    others = [each for each in directions if matrix.scores[matrix.column(each.name)].attribute != attribute]
    return max(others, key=lambda each: matrix.leakage(direction.name, each.name))


def main() -> None:
    """Print the tables and write steering.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--images", type=int, default=8000, help="images that boundaries are found on")
    parser.add_argument(
        "--samples", type=int, default=20_000, help="samples that boundaries are found on, without an encoder"
    )
    parser.add_argument("--moved", type=int, default=500, help="codes that are moved along the boundaries")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    places = []
    for name, space in PLACES:
        places.append(measure(given.checkpoints / name, space, given.images, given.samples, given.moved))
        print(f"{name}, {space}: done", flush=True)
    head = ["factor", *(each.label for each in places)]
    evidence = {place.label: {each.name: each.evidence for each in place.directions} for place in places}
    print(
        "\nAccuracy by cross-validation (balanced accuracy; share of the majority) of all codes, percent:\n"
    )
    Table(
        head,
        [
            [
                factor,
                *(
                    f"{100 * accuracies[factor]['accuracy']:.0f} "
                    f"({100 * accuracies[factor]['balanced_accuracy']:.0f}; "
                    f"{100 * accuracies[factor]['majority']:.0f})"
                    for accuracies in evidence.values()
                ),
            ]
            for factor in FACTORS
        ],
    ).print()
    print(
        f"\nChange by {ALPHA:g} σ, in std; most affected other factor and its leakage: without conditioning "
        "→ conditioned on its boundary → on its gradient:\n"
    )
    Table(
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
    ).print()
    write_json(given.output / "steering.json", {"places": [each.as_dict() for each in places]})


if __name__ == "__main__":
    main()
