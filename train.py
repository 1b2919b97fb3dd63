"""Train a flow: read a config, train, report.

python train.py                                        # Glow on digits, a minute on two cores
python train.py --config configs/fashion/glow.yaml --model.depth 4
python train.py --config configs/fashion/glow.yaml --resume latest
torchrun --standalone --nproc_per_node 2 train.py --config configs/fashion/glow.yaml
"""

from dataclasses import asdict

import torch
import yaml

from flows.config import fail, parse_experiment
from flows.data.base import DataMissing
from flows.models.base import CheckpointError
from flows.training.checkpoint import find_state
from flows.training.folder import prepare_folder
from flows.training.loop import NonFinite, fit, make_accelerator
from flows.training.objectives.likelihood import likelihood
from flows.training.report import write_report


def main() -> None:
    """Everything between the command line and the report."""
    parser, settings = parse_experiment()
    torch.manual_seed(settings.training.seed)
    try:
        experiment = parser.instantiate(settings)
        accelerator = make_accelerator()
        folder, resolved = experiment.folder, parser.dump(settings)
        state = find_state(folder, experiment.resume)
        if accelerator.is_main_process:
            prepare_folder(folder, resolved, experiment.resume, experiment.overwrite)
        accelerator.wait_for_everyone()
        experiment.model.description = {
            **asdict(experiment.data.description()),
            "source": yaml.safe_load(resolved)["data"],
        }
        outcome = fit(
            experiment.model, experiment.data, experiment.training, folder, likelihood, accelerator, state
        )
    except (ValueError, DataMissing, CheckpointError, NonFinite) as error:
        fail(str(error))
    if not accelerator.is_main_process:
        return
    if outcome.interrupted:
        print(f"stopped by {outcome.interrupted}, saved {outcome.state}; --resume latest continues")
        return
    write_report(folder, experiment.data)


if __name__ == "__main__":
    main()
