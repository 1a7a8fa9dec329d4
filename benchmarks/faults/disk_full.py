"""A disk that becomes full at random moments: no checkpoint is lost, and with room again the run goes on.

    python -m benchmarks.faults.disk_full --tries 10

With root's rights, on a small tmpfs that is filled while the training runs. Without, the training gets a limit of the
size of its files (RLIMIT_FSIZE), so that its next checkpoint fails in the middle of being written.
"""

import argparse
import contextlib
import os
import random
import resource
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mmengine.runner import EpochBasedTrainLoop

from benchmarks.faults.results import write_row
from benchmarks.faults.trial import ITERATIONS, Trial, bitwise_equal, exit_code
from mmebm.launch.newest import fault

TMPFS = 'tmpfs of 4 MB'
LIMIT = 'RLIMIT_FSIZE'


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[str]:
    """Context in which a folder is a small disk of its own, if it can be; yields which stand-in it is."""
    folder.mkdir(parents=True)
    if os.geteuid() != 0:
        yield LIMIT
        return
    subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=4m', 'tmpfs', str(folder)], check=True)
    try:
        yield TMPFS
    finally:
        subprocess.run(['umount', '-l', str(folder)], check=True)


def fill(folder: Path) -> Path:
    """Write a file until the disk is full."""
    path = folder / 'ballast'
    with path.open('wb', buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    return path


def full_before(iteration: int, kind: str, disk: Path):
    """What fills the disk before an iteration of the training."""

    def before(rank: int) -> None:
        run_iter = EpochBasedTrainLoop.run_iter

        def run(self, idx, batch):
            if self.iter == iteration and kind == LIMIT:
                resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
            elif self.iter == iteration:
                fill(disk)
            run_iter(self, idx, batch)

        EpochBasedTrainLoop.run_iter = run

    return before


def main() -> None:
    """Run the trials and write their row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tries', type=int, default=10)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--dry-run', action='store_true', help='write no results')
    args = parser.parse_args()
    folder, rng, lost = Path(tempfile.mkdtemp(prefix='disk_full_')), random.Random(args.seed), 0
    whole = Trial(folder / 'whole')
    whole.finish()
    for number in range(args.tries):
        disk = folder / f'disk_{number}'
        with small_disk(disk) as kind:
            trial, iteration = Trial(folder / f'try_{number}', work_dir=disk / 'run'), rng.randrange(ITERATIONS)
            begin = time.monotonic()
            code = exit_code(trial.start(before=full_before(iteration, kind, disk))[0])
            left = {name: fault(trial.work_dir / name) for name in trial.checkpoints()}
            saved = iteration // 5  # checkpoints before; two of them are kept
            is_kept = not any(left.values()) and len(left) == min(2, saved) and trial.saved_iteration() == 5 * saved
            told = [line for line in trial.output().splitlines() if 'Make room' in line]
            (disk / 'ballast').unlink(missing_ok=True)
            trial.finish()
            is_equal = bitwise_equal(trial.final(), whole.final())
        lost += not (is_kept and is_equal and code == 1 and told)
        print(f'{number}: full before iteration {iteration + 1} ({kind}), exit code {code}, {left}, '
              f'{time.monotonic() - begin:.1f} s, equal afterwards: {is_equal}\n   {told}', flush=True)  # fmt: skip
        if not args.dry_run:
            write_row('disk_full', dict(tried=number + 1, checkpoints_lost=lost, disk=kind))
    print(f'{lost} of {args.tries} lost; {folder}')


if __name__ == '__main__':
    main()
