"""A training that goes on with 1, then 2, then 1 process, and 0, then 2 workers: the same samples and draws.

    python -m benchmarks.faults.elastic --tries 5

The total batch stays. Each run but the last is stopped by SIGTERM at a random iteration. Compared are, in the order of
the training, the index of every sample and a hash of its corrupted and its clean image, with those of one
uninterrupted process without workers.
"""

import argparse
import hashlib
import os
import random
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

from mmengine.runner import EpochBasedTrainLoop

from benchmarks.faults.results import write_row
from benchmarks.faults.trial import BATCH, ITERATIONS, Trial, exit_code
from mmebm.engine.resuming.stop_signals import REQUEUE

PROCESSES, WORKERS = (1, 2, 1), (0, 2, 2)


def recording(folder: Path, stop: int | None) -> Callable[[int], None]:
    """What makes a process write down each sample of its batches, and signal itself at an iteration."""

    def before(rank: int) -> None:
        run_iter = EpochBasedTrainLoop.run_iter

        def run(self, idx, batch):
            with (folder / f'samples_{rank}.txt').open('a') as file:
                for slot, sample in enumerate(batch['data_samples']):
                    pixels = b''.join(view[slot].numpy().tobytes() for view in batch['inputs'])
                    digest = hashlib.sha256(pixels).hexdigest()
                    file.write(f'{self.iter} {slot} {rank} {sample.sample_idx} {digest}\n')
            if self.iter == stop:
                os.kill(os.getpid(), signal.SIGTERM)
            run_iter(self, idx, batch)

        EpochBasedTrainLoop.run_iter = run

    return before


def samples(folder: Path) -> list[tuple[int, int, int, str, str]]:
    """What was written down: iteration, slot, rank, index and hash, in the order of the training."""
    rows = [line.split() for path in folder.glob('samples_*.txt') for line in path.read_text().splitlines()]
    return sorted(
        (int(iteration), int(slot), int(rank), index, digest) for iteration, slot, rank, index, digest in rows
    )


def options(processes: int, workers: int) -> list[str]:
    """The same total batch for any number of processes."""
    return [f'train_dataloader.batch_size={BATCH // processes}', f'train_dataloader.num_workers={workers}']


def main() -> None:
    """Run the trials and write their row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tries', type=int, default=5)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--dry-run', action='store_true', help='write no results')
    args = parser.parse_args()
    folder, rng, equal = Path(tempfile.mkdtemp(prefix='elastic_')), random.Random(args.seed), 0
    whole = Trial(folder / 'whole')
    whole.finish(options(1, 0), before=recording(folder / 'whole', None))
    expected = [row[3:] for row in samples(folder / 'whole')]
    for number in range(args.tries):
        trial, found, first = Trial(folder / f'try_{number}'), [], 0
        stops = sorted(rng.sample(range(2, ITERATIONS - 3), 2))
        for count, (processes, workers) in enumerate(zip(PROCESSES, WORKERS, strict=True)):
            stop, part = [*stops, None][count], trial.folder / f'part_{count}'
            part.mkdir()
            pids = trial.start(options(processes, workers), processes, recording(part, stop))
            codes = [exit_code(pid, timeout=600) for pid in pids]
            if codes != [0 if stop is None else REQUEUE] * processes:
                raise RuntimeError(f'Exit codes {codes}: {trial.output()[-3000:]}')
            last = ITERATIONS if stop is None else trial.saved_iteration()
            found += [row for row in samples(part) if first <= row[0] < last]
            first = last
        is_equal = [row[3:] for row in found] == expected
        equal += is_equal
        print(f'{number}: signals in iterations {stops}, {len(found)} samples, equal: {is_equal}', flush=True)
        if not args.dry_run:
            write_row('elastic', dict(tried=number + 1, equal=equal, processes='1, 2, 1', workers='0, 2, 2'))
    print(f'{equal} of {args.tries} equal; {folder}')


if __name__ == '__main__':
    main()
