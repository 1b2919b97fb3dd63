"""Train a model: read a config, train, report.

python train.py                                        # Glow on digits, a minute on two cores
python train.py --config configs/fashion/glow.yaml --model.depth 4
python train.py --config configs/fashion/glow.yaml --resume latest
torchrun --standalone --nproc_per_node 2 train.py --config configs/fashion/glow.yaml
"""

import torch

from flows.config import parse_experiment
from flows.errors import program, reported
from flows.run import run
from flows.training.threads import Busy


def main() -> None:
    """Parse the command line and run the experiment."""
    with reported():
        since = Busy.now()
        parser, settings = parse_experiment()
        torch.manual_seed(settings.training.seed)
        run(parser, settings, since)


if __name__ == "__main__":
    with program():
        main()
