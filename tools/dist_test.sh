#!/usr/bin/env bash
# Tests a checkpoint on several GPUs of one or more machines.
#   usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
#   several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each
set -euo pipefail

: "${3:?usage: dist_test.sh CONFIG CHECKPOINT GPUS [arguments]}"
TOOLS=$(dirname "${BASH_SOURCE[0]}")
exec bash "$TOOLS/dist_run.sh" "$3" "$TOOLS/test.py" "$1" "$2" "${@:4}"
