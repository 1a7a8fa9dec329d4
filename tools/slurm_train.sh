#!/usr/bin/env bash
# Submits a training to Slurm, one task a GPU, that survives pre-emption and time limits.
#   usage: tools/slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments of tools/train.py]
#   set GPUS, GPUS_PER_NODE, CPUS_PER_TASK, SBATCH_ARGS and SRUN_ARGS to change the defaults; SAVE_SECONDS is how long
#   before the end of the job's time the training is told to save
# A run that a signal has stopped is put back into the queue, and goes on in WORK_DIR: see docs/faults.md.
set -euo pipefail

USAGE='usage: slurm_train.sh PARTITION JOB_NAME CONFIG WORK_DIR [arguments]'
PARTITION=${1:?$USAGE}
JOB_NAME=${2:?$USAGE}
CONFIG=${3:?$USAGE}
WORK_DIR=${4:?$USAGE}
GPUS=${GPUS:-8}
GPUS_PER_NODE=${GPUS_PER_NODE:-8}
TOOLS=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)

if [[ -z ${MMEBM_IN_JOB:-} ]]; then
    mkdir -p "$WORK_DIR"
    # SBATCH_ARGS holds several arguments, hence without quotes. Slurm runs a copy of this script, hence TOOLS.
    # shellcheck disable=SC2086
    exec env MMEBM_IN_JOB=1 MMEBM_TOOLS="$TOOLS" sbatch -p "$PARTITION" \
        --job-name="$JOB_NAME" \
        --gres=gpu:"$GPUS_PER_NODE" \
        --ntasks="$GPUS" \
        --ntasks-per-node="$GPUS_PER_NODE" \
        --cpus-per-task="${CPUS_PER_TASK:-5}" \
        --signal=USR1@"${SAVE_SECONDS:-120}" \
        --requeue \
        --open-mode=append \
        --output="$WORK_DIR/slurm.out" \
        --export=ALL \
        ${SBATCH_ARGS:-} \
        "${BASH_SOURCE[0]}" "$@"
fi

trap : TERM USR1 # the training is told too: wait for it
rm -f "$WORK_DIR/requeue"
code=0
# shellcheck disable=SC2086
PYTHONPATH="$MMEBM_TOOLS/..:${PYTHONPATH:-}" srun --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
    python -u "$MMEBM_TOOLS/train.py" "$CONFIG" --work-dir="$WORK_DIR" --launcher=slurm --resume "${@:5}" || code=$?
# 75: stopped by a signal, with a checkpoint. srun may report another task's code; the training leaves a mark as well.
if [[ $code == 75 || -e $WORK_DIR/requeue ]]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
