"""yapf, by which mmengine formats configs: its first import writes a cache, which others may read half-written."""

import importlib
import pickle
import sys
import time


def import_yapf(attempts: int = 5, seconds: float = 1.0) -> None:
    """Import yapf, which all processes of a training do at the same time.

    Args:
        attempts: How often, while another process writes the cache.
        seconds: Between them.

    Raises:
        RuntimeError: The cache is damaged, as by a process that was killed while it wrote it.
    """
    for attempt in range(attempts):
        time.sleep(seconds if attempt else 0)
        try:
            importlib.import_module('yapf.yapflib.yapf_api')
            return
        except (EOFError, pickle.UnpicklingError):
            for name in [name for name in sys.modules if name.partition('.')[0] in ('yapf', 'yapf_third_party')]:
                del sys.modules[name]
    raise RuntimeError("yapf cannot read its cache; remove its folder in the user's cache (on Linux ~/.cache/YAPF)")
