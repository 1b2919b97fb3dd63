"""Train a model: read a config, train, report.

python train.py                                        # Glow on digits, a minute on two cores
python train.py --config configs/fashion/glow.yaml --model.depth 4
python train.py --config configs/fashion/glow.yaml --resume latest
torchrun --standalone --nproc_per_node 2 train.py --config configs/fashion/glow.yaml
"""

from dataclasses import asdict

import torch
from jsonargparse import Namespace

from flows.config import parse_experiment, resolve
from flows.errors import interrupted, program, reported
from flows.opening import load_any
from flows.parser import Parser
from flows.training.batches import fit_batch
from flows.training.checkpoint import find_state
from flows.training.folder import prepare_folder
from flows.training.loop import fit, make_accelerator


def main() -> None:
    """Parse the command line and run the experiment."""
    with reported():
        parser, settings = parse_experiment()
        torch.manual_seed(settings.training.seed)
        run(parser, settings)


def run(parser: Parser, settings: Namespace) -> None:
    """Train and report, or resume a run."""
    experiment = parser.instantiate(settings)
    # Before the accelerator, which asks the objective about a model that it must be able to train.
    experiment.objective.check(experiment.model, experiment.training.images)
    accelerator = make_accelerator(experiment.objective, experiment.model)
    folder, data = experiment.folder, experiment.data
    model, objective = experiment.model, experiment.objective
    resolved = resolve(parser, settings)
    # Also the test split, so that a missing one is noticed before hours of training.
    sizes = data.sizes()
    model.description = {**asdict(data.description()), "source": resolved["data"]}
    state, passed_over = find_state(folder, experiment.resume)
    training = fit_batch(experiment.training, sizes.get("train"), accelerator.num_processes)
    if training.batch < experiment.training.batch and accelerator.is_main_process:
        print(
            f"training.batch: {training.batch} instead of {experiment.training.batch}, because there are no "
            "more training images"
        )
    if experiment.init is not None and state is None:
        model.start_from(load_any(experiment.init, "cpu"))
    # Only now, because an earlier run in the folder may be cleared.
    if accelerator.is_main_process:
        prepare_folder(folder, resolved, experiment.resume, state, experiment.overwrite)
        for line in (data.summary(sizes), *data.notes(), passed_over):
            print(line, end="\n" if line else "")
    accelerator.wait_for_everyone()
    outcome = fit(model, data, training, folder, objective, accelerator, state, experiment.init is None)
    if accelerator.is_main_process and not outcome.interrupted:
        objective.report(folder, data, str(accelerator.device))
    accelerator.end_training()
    if outcome.interrupted:
        saved = f"stopped by {outcome.interrupted}, saved {outcome.state}; --resume latest continues"
        interrupted(saved if accelerator.is_main_process else "")


if __name__ == "__main__":
    with program():
        main()
