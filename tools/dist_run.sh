#!/usr/bin/env bash
# Starts one process a GPU; called by dist_train.sh and dist_test.sh.
#   usage: tools/dist_run.sh GPUS SCRIPT [arguments of the script]
#   several machines: set NNODES, NODE_RANK, MASTER_ADDR and PORT on each
#   MAX_RESTARTS: how often all processes are started again after one has failed; a training then needs --resume
set -euo pipefail

# SIGUSR1 too is passed on to the processes; it would end the launcher alone.
export TORCHELASTIC_SIGNALS_TO_HANDLE=${TORCHELASTIC_SIGNALS_TO_HANDLE:-SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1}
PYTHONPATH="$(dirname "${BASH_SOURCE[0]}")/..:${PYTHONPATH:-}"
export PYTHONPATH
meeting=(--node_rank="${NODE_RANK:-0}" --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}")
if [ "${MAX_RESTARTS:-0}" -gt 0 ]; then
    # A store of its own for each start: in one that is shared, the processes find the addresses of those killed before.
    export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
    meeting=(--rdzv-backend=c10d --rdzv-endpoint="${MASTER_ADDR:-127.0.0.1}:${PORT:-29500}" --rdzv-id=mmebm)
fi
exec python -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    "${meeting[@]}" \
    --max-restarts="${MAX_RESTARTS:-0}" \
    --nproc_per_node="$1" \
    "${@:2}" --launcher pytorch
