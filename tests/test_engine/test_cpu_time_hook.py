"""CPU seconds of training steps."""

import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.logging import HistoryBuffer, MessageHub
from torch.utils.data import DataLoader

from mmebm.engine.hooks.cpu_time_hook import CPUTimeHook, cpu_time
from mmebm.experiments.comparison.pretraining import cpu_seconds, step_seconds

BUSY = 'import time\nwhile time.process_time() < 0.3: pass'


def busy(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_processes_count_once_they_have_ended():
    start = cpu_time()
    subprocess.run([sys.executable, '-S', '-c', BUSY], check=True)
    assert 0.3 <= cpu_time() - start < 2


def test_steps_and_workers_are_logged_apart():
    loader = DataLoader([0])
    runner = SimpleNamespace(message_hub=MessageHub('cpu_time'), train_dataloader=loader, iter=0)
    hook = CPUTimeHook()
    for _ in range(2):
        busy(0.05)  # between epochs, which does not count
        hook.before_train_epoch(runner)
        for step in range(3):
            time.sleep(0.05)  # nor does waiting
            busy(0.02)
            hook.after_train_iter(runner, step)
        subprocess.run([sys.executable, '-S', '-c', BUSY], check=True)
        hook.after_train_epoch(runner)
    steps, workers = (
        runner.message_hub.get_scalar(f'train/{name}').data[0] for name in ('cpu_time', 'worker_cpu_time')
    )
    assert steps.tolist() == [pytest.approx(0.02, abs=0.02)] * 6
    assert len(workers) == 2
    assert all(0.3 <= value < 2 for value in workers)


@pytest.mark.parametrize(('num_workers', 'iteration', 'is_lost'), [(1, 2, True), (0, 2, False), (1, 3, False)])
def test_workers_of_an_interrupted_epoch_were_not_measured(num_workers, iteration, is_lost):
    loader = DataLoader([0, 1, 2], num_workers=num_workers)
    runner = SimpleNamespace(message_hub=MessageHub(f'cpu_time_{num_workers}_{iteration}'), train_dataloader=loader)
    runner.iter = iteration
    CPUTimeHook().before_train_epoch(runner)
    logged = runner.message_hub.log_scalars.get('train/worker_cpu_time')
    assert (logged is not None and bool(np.isnan(logged.data[0]).all())) == is_lost


def test_cpu_seconds_of_a_checkpoint_are_those_of_all_steps(tmp_path):
    def save(**history):
        scalars = {f'train/{name}': HistoryBuffer(values, [1] * len(values)) for name, values in history.items()}
        torch.save(dict(message_hub=dict(log_scalars=scalars)), tmp_path / 'point.pth')
        return tmp_path / 'point.pth'

    whole = save(time=[1.0, 2.0], cpu_time=[1.5, 3.5], worker_cpu_time=[0.25])
    assert (cpu_seconds(whole), step_seconds(whole)) == (5.25, [1.0, 2.0])
    assert cpu_seconds(save(time=[1.0], cpu_time=[1.0], worker_cpu_time=[float('nan'), 0.25])) is None
    # The training was begun without the hook.
    assert cpu_seconds(save(time=[1.0, 2.0], cpu_time=[3.5], worker_cpu_time=[0.25])) is None
    assert cpu_seconds(save(time=[1.0, 2.0])) is None
