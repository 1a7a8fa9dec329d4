#!/usr/bin/env bash
# Trains on several GPUs of one or more machines.
#   usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#   several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each
set -euo pipefail

CONFIG=${1:?usage: dist_train.sh CONFIG GPUS [arguments]}
GPUS=${2:?usage: dist_train.sh CONFIG GPUS [arguments]}
TOOLS=$(dirname "${BASH_SOURCE[0]}")

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" \
    python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$GPUS" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
