"""Train a model: read a config, train, report. An installed package has the same as `flows train`.

python train.py                                        # Glow on digits, a minute on two cores
python train.py --config configs/fashion/glow.yaml --model.depth 4
python train.py --config configs/fashion/glow.yaml --resume latest
torchrun --standalone --nproc_per_node 2 train.py --config configs/fashion/glow.yaml
"""

from flows.errors import program
from flows.run import main

if __name__ == "__main__":
    with program():
        main()
