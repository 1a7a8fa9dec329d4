"""SIGTERM at random moments: a checkpoint each time, at most one iteration lost, exit code 75.

    python -m benchmarks.faults.sigterm --tries 20

Every second training has two processes of which one is signalled, every third one validates. A signal before the first
iteration leaves nothing to save; one after the last, which a run finishes, is tried again.
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
    expected, duration, saved, number = {}, {}, 0, 0
    while number < args.tries:
        processes, validates = 1 + number % 2, number % 3 == 0
        config = CONFIG.replace(NO_VALIDATION, 'test_dataloader') if validates else CONFIG
        options = [f'train_dataloader.batch_size={BATCH // processes}']
        if (processes, validates) not in expected:
            whole, begin = Trial(folder / f'whole_{processes}_{validates}', config), time.monotonic()
            whole.finish(options, processes)
            duration[processes, validates] = time.monotonic() - begin
            expected[processes, validates] = whole.final()
        trial = Trial(folder / f'try_{number}', config)
        pids = trial.start(options, processes)
        time.sleep(rng.uniform(0.3, 1) * duration[processes, validates])
        os.kill(rng.choice(pids), rng.choice([signal.SIGTERM, signal.SIGUSR1]))
        codes = [exit_code(pid, timeout=300) for pid in pids]
        done, at = trial.steps(), trial.saved_iteration()
        if codes == [0] * processes:
            shutil.rmtree(trial.folder)
            continue
        is_saved = REQUEUE in codes and (processes == 1 or done == 0 or codes == [REQUEUE] * 2) and done - at <= 1
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
