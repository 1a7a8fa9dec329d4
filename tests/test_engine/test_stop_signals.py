"""Workers that ignore the signals of a cluster, and the end of the process that has them."""

import os
import signal
import subprocess
import sys
import time

import pytest
from mmengine.config import Config

from mmebm.engine.resuming.stop_signals import REQUEUE, catching_signals, ending_at_once
from mmebm.launch.interruption import MARK, told_why
from mmebm.launch.machine import adapt_to_cpu

PROGRAM = """
import torch
from mmebm.engine.resuming.stop_signals import IgnoresSignals
ignore = IgnoresSignals(None)
loader = torch.utils.data.DataLoader(range(8), num_workers=2, persistent_workers=True, worker_init_fn=ignore)
batches = iter(loader)
print(next(batches).item(), flush=True)
raise SystemExit(3)
"""


def test_a_process_ends_though_its_workers_ignore_the_signals():
    """multiprocessing ends them by SIGTERM, and waits for that."""
    ended = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=300)
    assert (ended.stdout, ended.returncode) == ('0\n', 3)


def ended(pid, seconds=20):
    """The exit code of a process, None if it does not end in time."""
    for _ in range(seconds * 20):
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGUSR1])
def test_a_process_that_waits_for_others_obeys(tmp_path, monkeypatch, free_port, number):
    """The wait is in C++, where Python cannot run its handler."""
    for name, value in dict(RANK='1', WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(free_port)).items():
        monkeypatch.setenv(name, value)
    pid = os.fork()
    if pid == 0:
        try:
            with catching_signals(), told_why([tmp_path]):
                (tmp_path / 'begun').touch()
                adapt_to_cpu(Config(dict(launcher='pytorch')))
        finally:
            os._exit(1)
    while not (tmp_path / 'begun').exists():
        time.sleep(0.01)
    time.sleep(0.5)
    os.kill(pid, number)
    assert ended(pid) == REQUEUE
    assert (tmp_path / MARK).read_text() == f'{signal.Signals(number).name}\n'


def test_a_wait_that_python_can_end_ends_as_elsewhere(monkeypatch):
    monkeypatch.setattr('mmebm.engine.resuming.stop_signals.GRACE', 0.1)
    with pytest.raises(SystemExit) as end, catching_signals(), ending_at_once():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1)
    assert end.value.code == REQUEUE
    with catching_signals(), ending_at_once():
        pass
    assert signal.set_wakeup_fd(-1) == -1
    with ending_at_once():  # nobody catches
        assert signal.set_wakeup_fd(-1) == -1
