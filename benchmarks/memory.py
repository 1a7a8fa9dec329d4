"""Peak memory of a function, as the device's allocator or the operating system sees it."""

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

import torch

# For a process whose memory is read from its resident size: glibc then returns large blocks when they are freed.
MALLOC_SETTINGS = dict(MALLOC_MMAP_THRESHOLD_='65536', MALLOC_TRIM_THRESHOLD_='65536', MALLOC_ARENA_MAX='1')


def peak_memory(function: Callable[[], object], device: str) -> int:
    """Bytes that a call holds at its peak, above what is held before it.

    On the CPU it is the resident size of this process, which needs ``MALLOC_SETTINGS`` in the environment to mean
    anything; on a GPU it is what torch has allocated.
    """
    gc.collect()
    if device == 'cuda':
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        function()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    missing = [name for name in MALLOC_SETTINGS if name not in os.environ]
    if missing:
        raise RuntimeError(f'peak_memory on the CPU needs {missing} in the environment, see MALLOC_SETTINGS')
    ctypes.CDLL(None).malloc_trim(0)
    Path('/proc/self/clear_refs').write_text('5')  # sets the high-water mark back
    before = _resident('VmRSS')
    function()
    return _resident('VmHWM') - before


def _resident(field: str) -> int:
    for line in Path('/proc/self/status').read_text().splitlines():
        if line.startswith(f'{field}:'):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f'/proc/self/status has no {field}')
