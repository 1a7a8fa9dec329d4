"""``kill -9`` at random moments: every resumed run has to end in the weights of an uninterrupted one.

    python -m benchmarks.faults.kills --single 50 --pairs 20

Every third kill hits the writing of a checkpoint. Resumed runs have 0, 1 or 2 workers at random. Of two processes the
other has to end within a minute and what a start takes. No launcher ends it: if it has not met the killed one yet, it
waits for that one to start as long as ``env_cfg.dist_cfg.timeout`` says, here ``TIMEOUT``.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import mmebm.engine.atomic_backend as backend
from benchmarks.faults.results import write_row
from benchmarks.faults.trial import BATCH, Trial, bitwise_equal, exit_code

# Moments of writing a file: half of it is on the disk; all, but under its other name; renamed; the old one is going.
MOMENTS = ('half-written', 'written', 'renamed', 'removing')

TIMEOUT = 20  # in seconds; for a process that listens no longer, torch waits about twice as long


def die_while_writing(moment: str, count: int) -> Callable[[int], None]:
    """What makes rank 0 kill itself at its ``count``-th file of a checkpoint, or of its name."""
    left = [count]

    def die() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def before(rank: int) -> None:
        fsync, remove = os.fsync, backend.AtomicBackend.remove

        def sync(descriptor: int) -> None:
            is_folder = Path(f'/proc/self/fd/{descriptor}').is_dir()
            if moment == 'half-written' and left[0] == 1 and not is_folder:
                os.ftruncate(descriptor, os.fstat(descriptor).st_size // 2)
            if is_folder == (moment == 'renamed') and moment != 'removing':
                die()
            fsync(descriptor)

        def removing(self, path):
            if moment == 'removing':
                die()
            remove(self, path)

        if rank == 0:
            os.fsync, backend.AtomicBackend.remove = sync, removing

    return before


def killed_runs(folder: Path, tries: int, processes: int, seed: int) -> Iterator[dict[str, int]]:
    """Of how many killed and resumed runs how many end in the weights of one that was not, after each."""
    rng = random.Random(seed)
    options = [f'train_dataloader.batch_size={BATCH // processes}']
    whole = Trial(folder / 'whole')
    begin = time.monotonic()
    whole.finish(options, processes)
    duration, expected, equal = time.monotonic() - begin, whole.final(), 0
    number = 0
    while number < tries:
        trial = Trial(folder / f'try_{number}')
        moment = rng.choice(MOMENTS) if number % 3 == 0 else None
        count = rng.randint(1, 3 if moment == 'removing' else 10)
        before = die_while_writing(moment, count) if moment else None
        pids = trial.start([*options, f'env_cfg.dist_cfg.timeout={TIMEOUT}'], processes, before)
        if moment is None:
            time.sleep(rng.uniform(0.1, duration))
            os.kill(rng.choice(pids), signal.SIGKILL)
        ended = time.monotonic()
        codes = [exit_code(pid, timeout=600 if moment else 60 + duration) for pid in pids]
        if None in codes:
            raise RuntimeError(f'A process has not ended in time after another was killed: {codes}')
        if -signal.SIGKILL not in codes:  # it had ended before
            shutil.rmtree(trial.folder)
            continue
        waited, left = time.monotonic() - ended, trial.checkpoints()
        trial.finish([*options, f'train_dataloader.num_workers={rng.randint(0, 2)}'], processes)
        is_equal = bitwise_equal(trial.final(), expected)
        equal += is_equal
        print(f'{number}: killed {moment or "at random"}, {left}, {waited:.1f} s, equal: {is_equal}', flush=True)
        if is_equal:
            shutil.rmtree(trial.folder)
        number += 1
        yield dict(tried=number, bitwise_equal=equal)


def main() -> None:
    """Run the trials and write their rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--single', type=int, default=50, help='kills of a training in one process')
    parser.add_argument('--pairs', type=int, default=20, help='kills of one of two processes')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--dry-run', action='store_true', help='write no results')
    args = parser.parse_args()
    for key, tries, processes in (('kills_single', args.single, 1), ('kills_two_process', args.pairs, 2)):
        folder = Path(tempfile.mkdtemp(prefix='kills_'))
        for row in killed_runs(folder, tries, processes, args.seed) if tries else []:
            print(key, row, f'(what differs is left in {folder})' if row['tried'] != row['bitwise_equal'] else '')
            if not args.dry_run:
                write_row(key, row)


if __name__ == '__main__':
    main()
