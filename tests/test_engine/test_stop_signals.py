"""Workers that ignore the signals of a cluster, and the end of the process that has them."""

import subprocess
import sys

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
    ended = subprocess.run([sys.executable, '-c', PROGRAM], capture_output=True, text=True, timeout=60)
    assert (ended.stdout, ended.returncode) == ('0\n', 3)
