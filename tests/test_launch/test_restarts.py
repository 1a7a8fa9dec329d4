"""One process of several is killed under torchrun: the cause is named, and the training, started again, goes on."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.faults.trial import CONFIG, ITERATIONS

ROOT = Path(__file__).parents[2]
SCRIPT = """
import os
import signal

from mmengine.runner import EpochBasedTrainLoop

from mmebm.commands.train import main

run_iter = EpochBasedTrainLoop.run_iter


def run(self, idx, batch):
    if self.iter == 7 and os.environ['RANK'] == '1' and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':
        os.kill(os.getpid(), signal.SIGKILL)
    run_iter(self, idx, batch)


EpochBasedTrainLoop.run_iter = run
main()
"""


@pytest.mark.slow
def test_torchrun_names_the_killed_process_and_the_restart_resumes(tmp_path, free_port):
    (tmp_path / 'script.py').write_text(SCRIPT)
    (tmp_path / 'config.py').write_text(CONFIG)
    command = ['bash', str(ROOT / 'tools/dist_run.sh'), '2', 'script.py', 'config.py', '--work-dir', 'run', '--resume']
    path = f'{Path(sys.executable).parent}:{os.environ["PATH"]}'
    environment = os.environ | dict(MAX_RESTARTS='1', PORT=str(free_port), PATH=path)
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert 'exitcode: -9' in done.stderr or 'SIGKILL' in done.stderr
    assert 'resumed epoch: 1, iter: 5' in done.stdout + done.stderr  # by mmengine
    meta = torch.load(tmp_path / f'run/iter_{ITERATIONS * 4 // 8}.pth', weights_only=False)['meta']
    assert meta['iter'] == ITERATIONS // 2  # batches of two processes
