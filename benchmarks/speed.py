"""Images per second of the models of configs: training step, likelihood, encode, decode.

    python benchmarks/speed.py configs/fashion/glow.yaml configs/fashion/realnvp.yaml

Prints one JSON line per config with medians over alternating repeats: each round runs every measurement of
every config once, so that a slow minute of the machine affects all of them alike. Compare ratios within a
run, not times of two runs.
"""

import argparse
import json
from collections.abc import Callable
from typing import Any

import torch
from timing import alternate, medians

from flows import images as pixels
from flows.config import parse_experiment
from flows.models.base import LikelihoodModel
from flows.training.optimiser import make_optimiser


def measurements(model: LikelihoodModel, experiment: Any, batch: int) -> dict[str, Callable[[], object]]:
    """Name of each measurement to a function that processes `batch` images once."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (batch, *model.image_shape), dtype=torch.uint8, generator=generator)
    labels = torch.zeros(batch, dtype=torch.long)
    model.initialise(images, labels)
    unit = pixels.to_unit(images, model.bins)
    codes = model.sample_codes(batch, generator=generator)
    optimiser = make_optimiser(list(model.parameters()), experiment.training)

    def step() -> None:
        model.train()
        optimiser.zero_grad()
        (-model(images, labels).log_prob.mean()).backward()
        optimiser.step()
        model.eval()

    def without_gradient(function: Callable[[], object]) -> Callable[[], object]:
        def run() -> None:
            with torch.no_grad():
                function()

        return run

    return {
        "step": step,
        "likelihood": without_gradient(lambda: model(images, labels)),
        "encode": without_gradient(lambda: model.encode(unit, labels=labels)),
        "decode": without_gradient(lambda: model.decode(codes, labels=labels)),
    }


def main() -> None:
    """Measure the models of the configs on the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("configs", nargs="+")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()

    functions: dict[tuple[str, str], Callable[[], object]] = {}
    for config in given.configs:
        config_parser, settings = parse_experiment(["--config", config])
        experiment = config_parser.instantiate(settings)
        for name, function in measurements(experiment.model, experiment, given.batch).items():
            functions[config, name] = function
    seconds = medians(alternate(functions, given.repeats, warm=1))
    for config in given.configs:
        line: dict[str, Any] = {"config": config, "batch": given.batch, "threads": torch.get_num_threads()}
        for (measured, name), median in seconds.items():
            if measured == config:
                line[f"{name}_images_per_second"] = round(given.batch / median, 1)
        print(json.dumps(line))


if __name__ == "__main__":
    main()
