"""Slurm and Python that only write down how they are called, for tests of shell scripts."""

from pathlib import Path

# sbatch runs a copy of the script it is given, as Slurm does; a requeued job runs once more, at most.
FAKES = {
    'sbatch': """
echo "sbatch $*" >> "$LOG"
while [[ $1 == -* ]]; do if [[ $1 == -p ]]; then shift; fi; shift; done
cp "$1" "$PWD/slurm_script"
shift
for try in 1 2; do
    rm -f "$PWD/again"
    SLURM_JOB_ID=7 bash "$PWD/slurm_script" "$@" || true
    [[ -e $PWD/again ]] || break
done
""",
    'srun': """
while [[ $1 == --* ]]; do shift; done
exec "$@"
""",
    'scontrol': """
echo "scontrol $*" >> "$LOG"
touch "$PWD/again"
""",
    'python': """
echo "python $*" >> "$LOG"
eval "$(head -n1 "$PWD/plan")"
""",
}


def put_fakes(folder: Path) -> None:
    """Write the fakes into a folder of ``PATH``; ``LOG`` names the file of the calls, ``plan`` what Python does."""
    for name, text in FAKES.items():
        (folder / name).write_text(f'#!/usr/bin/env bash\nset -euo pipefail{text}')
        (folder / name).chmod(0o755)
