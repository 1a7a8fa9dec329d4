#!/usr/bin/env bash
# Trains on several GPUs of one or more machines.
#   usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
#   several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each
set -euo pipefail

: "${2:?usage: dist_train.sh CONFIG GPUS [arguments]}"
TOOLS=$(dirname "${BASH_SOURCE[0]}")
exec bash "$TOOLS/dist_run.sh" "$2" "$TOOLS/train.py" "$1" "${@:3}"
