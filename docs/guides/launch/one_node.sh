#!/usr/bin/env bash
# All GPUs of one machine, one process each. From the repository's root:
#
#   docs/guides/launch/one_node.sh configs/paper/glow-cifar10.yaml
#   GPUS=4 docs/guides/launch/one_node.sh configs/paper/glow-cifar10.yaml --training.accumulate 2
#
# The first argument is the config, all others go to train.py. Without GPUs, GPUS=2 starts two CPU ranks.
set -euo pipefail

config=$1
shift
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}

# After a signal the ranks have this many seconds to write their state before torchrun kills them.
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}

exec torchrun --standalone --nproc_per_node "$gpus" train.py --config "$config" "$@"
