"""Boundaries in the spaces of the included models of scenes: accuracies and leakages.

    python benchmarks/steering.py      # ten minutes on two cores

A boundary (InterFaceGAN) is found for every factor in every space: from encoded training images and their
ground truth in spaces with an encoder, otherwise from samples scored by the predictor. Codes that it was not
found on (test images, if there is an encoder) are moved along it. The boundary is then made orthogonal to the
most affected other factor, in two ways: to its boundary, and to the mean gradient of its score. Writes
docs/results/boundaries.json and prints its tables.
"""

import argparse
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from saving import model_name, new_parser, publish

from flows.display.results import Made, Result, Shown
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
CONDITIONED = (("scenes-stylegan", "w"), ("scenes-lia", "w"))
"""Places in the table of conditioned boundaries."""
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


def measure_all(given: argparse.Namespace) -> dict[str, Any]:
    """Boundaries in all places, and what they were found on."""
    places = []
    for name, space in PLACES:
        place = measure(given.checkpoints / name, space, given.images, given.samples, given.moved)
        places.append(place.as_dict())
        print(f"{name}, {space}: done", flush=True)
    counts = {"images": given.images, "samples": given.samples, "moved": given.moved}
    return {**counts, "places": places}


def factor_name(factor: str) -> str:
    """Name of a factor in tables."""
    return factor.removeprefix("category: ").replace("_", " ")


def accuracies(data: dict[str, Any]) -> Shown:
    """Table of the accuracy of every boundary in every place."""
    places = data["places"]
    rows = []
    for factor in FACTORS:
        cells = []
        for place in places:
            found = place["accuracies"][factor]
            shares = (100 * found[key] for key in ("accuracy", "balanced_accuracy", "majority"))
            cells.append("{:.0f} ({:.0f}; {:.0f})".format(*shares))
        rows.append([factor_name(factor), *cells])
    named = {
        source: " and ".join(
            dict.fromkeys(model_name(place["model"]) for place in places if place["source"] == source)
        )
        for source in ("images", "samples")
    }
    note = (
        f"Balanced accuracy; share of the majority. {named['images']}: {data['images']:,} encoded training "
        f"images; {named['samples']}: {data['samples']:,} samples labelled by the predictor."
    )
    columns = ["factor", *(f"{model_name(place['model'])}, {place['space']}" for place in places)]
    return Shown(columns, rows, "Accuracy by cross-validation, percent", note)


def conditions(data: dict[str, Any]) -> Shown:
    """Table of the leakages before and after conditioning, of the places in `CONDITIONED`."""
    by_place = {(place["model"], place["space"]): place for place in data["places"]}
    places = [by_place[each] for each in CONDITIONED if each in by_place]
    columns = ["boundary"]
    for place in places:
        name = model_name(place["model"])
        columns += [f"{name}: most affected", "before", "by boundary", "by gradient"]
    rows = []
    for factor in FACTORS:
        row = [factor_name(factor)]
        for found in (place["conditioned"][factor] for place in places):
            leakages = (found["leakage"], found["by_boundary"], found["by_gradient"])
            row += [factor_name(found["on"]), *(f"{each:.2f}" for each in leakages)]
        rows.append(row)
    return Shown(columns, rows, "Leakage before and after conditioning")


def effects(data: dict[str, Any]) -> Shown:
    """Table of the change of every factor's own score in every place."""
    places = data["places"]
    columns = ["factor", *(f"{model_name(place['model'])}, {place['space']}" for place in places)]
    rows = [
        [factor_name(factor), *(f"{place['effects'][factor]:.2f}" for place in places)] for factor in FACTORS
    ]
    return Shown(columns, rows, f"Change of the score by {ALPHA:g} σ, in std")


def result(data: dict[str, Any], made: Made) -> Result:
    """Tables of accuracies, leakages and effects."""
    tables = {"accuracies": accuracies(data), "conditions": conditions(data), "effects": effects(data)}
    return Result("Boundaries", made, tables, data=data)


def main() -> None:
    """Find all boundaries; write boundaries.json and print its tables."""
    parser = new_parser(__doc__)
    parser.add_argument("--checkpoints", type=Path, default=Path("checkpoints"))
    parser.add_argument("--images", type=int, default=8000, help="images that boundaries are found on")
    parser.add_argument(
        "--samples", type=int, default=20_000, help="samples that boundaries are found on, without an encoder"
    )
    parser.add_argument("--moved", type=int, default=500, help="codes that are moved along the boundaries")
    given = parser.parse_args()
    publish(given, "boundaries", result, partial(measure_all, given))


if __name__ == "__main__":
    main()
