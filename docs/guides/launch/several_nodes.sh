#!/usr/bin/env bash
# Several machines without a scheduler. The same command on each of them, from the repository's root:
#
#   HEAD=node0 NODES=2 docs/guides/launch/several_nodes.sh configs/paper/glow-imagenet64.yaml
#
# HEAD is one of the machines, by a name or address that all of them reach; PORT (29500) must be free on it.
# Run folder and data are on a shared file system. The first argument is the config, all others go to
# train.py.
set -euo pipefail

config=$1
shift
gpus=${GPUS:-$(nvidia-smi --list-gpus | wc -l)}
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-120}

exec torchrun \
    --nnodes "$NODES" --nproc_per_node "$gpus" \
    --rdzv_backend c10d --rdzv_endpoint "$HEAD:${PORT:-29500}" --rdzv_id "${JOB:-flows}" \
    train.py --config "$config" "$@"
