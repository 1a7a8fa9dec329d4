"""SIGTERM at random moments: a checkpoint each time, at most one iteration lost, exit code 75.

    python -m benchmarks.faults.sigterm --tries 20

Every second training has two processes of which one is signalled, every third one validates. The moments are between
the first iteration, before which there is nothing to save, and the last; if the run finishes first, another is tried.
"""

import argparse
import os
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

from benchmarks.faults.results import write_row
from benchmarks.faults.trial import BATCH, CONFIG, ITERATIONS, Trial, bitwise_equal, exit_code
from mmebm.engine.resuming.stop_signals import REQUEUE

NO_VALIDATION = 'val_dataloader = val_evaluator = val_cfg = test_dataloader'


def main() -> None:
    """Run the trials and write their row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--tries', type=int, default=20)
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--dry-run', action='store_true', help='write no results')
    args = parser.parse_args()
    folder, rng = Path(tempfile.mkdtemp(prefix='sigterm_')), random.Random(args.seed)
    expected, saved, number = {}, 0, 0
    while number < args.tries:
        processes, validates = 1 + number % 2, number % 3 == 0
        config = CONFIG.replace(NO_VALIDATION, 'test_dataloader') if validates else CONFIG
        options = [f'train_dataloader.batch_size={BATCH // processes}']
        if (processes, validates) not in expected:
            whole = Trial(folder / f'whole_{processes}_{validates}', config)
            whole.finish(options, processes)
            expected[processes, validates] = whole.final()
        trial = Trial(folder / f'try_{number}', config)
        pids = trial.start(options, processes)
        begin, moment = rng.randrange(1, ITERATIONS), rng.uniform(0, 0.1)
        while trial.steps() < begin:
            time.sleep(0.02)
        time.sleep(moment)
        os.kill(rng.choice(pids), rng.choice([signal.SIGTERM, signal.SIGUSR1]))
        codes = [exit_code(pid, timeout=300) for pid in pids]
        done, at = trial.steps(), trial.saved_iteration()
        if codes == [0] * processes:
            shutil.rmtree(trial.folder)
            continue
        is_saved = codes == [REQUEUE] * processes and 0 <= done - at <= 1
        trial.finish(options, processes)
        is_equal = bitwise_equal(trial.final(), expected[processes, validates])
        saved += is_saved and is_equal
        print(f'{number}: {processes} processes, {done} of {ITERATIONS} done, {at} saved, codes {codes}, '
              f'equal afterwards: {is_equal}', flush=True)  # fmt: skip
        number += 1
        if not args.dry_run:
            write_row('sigterm', dict(tried=number, saved=saved))
    print(f'{saved} of {number} saved; {folder}')


if __name__ == '__main__':
    main()
