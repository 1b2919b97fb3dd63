#!/usr/bin/env bash
# One process: on the first GPU, or on the CPU where there is none. From the repository's root:
#
#   docs/guides/launch/one_gpu.sh configs/fashion/glow.yaml --training.precision bf16
#
# The first argument is the config, all others go to train.py.
set -euo pipefail

config=$1
shift
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES:-0}
exec python train.py --config "$config" "$@"
