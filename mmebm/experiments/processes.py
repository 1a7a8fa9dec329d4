"""A config run in a process and a folder of its own, by the command that a user would type."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config

_running: set[subprocess.Popen] = set()
_is_ending = threading.Event()


def check_same(cfg: Config, folder: Path) -> None:
    """Check that a folder is new, or holds a run of the same config.

    Raises:
        ValueError: It holds another run, whose figures would be taken for new ones.
    """
    earlier = _config_file(folder)
    if earlier.exists() and earlier.read_text() != cfg.pretty_text:
        raise ValueError(f'{folder} holds a run of other settings; remove it, or give another --work-dir')


def write_config_once(cfg: Config, folder: Path) -> None:
    """Write the config of a folder's figures beside it.

    Raises:
        ValueError: Another config is there.
    """
    check_same(cfg, folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    cfg.dump(_config_file(folder))


def run_config(module: Sequence[str], cfg: Config, folder: Path, flags: Sequence[str] = (), **environment: str) -> None:
    """Run ``python -m MODULE CONFIG FLAGS``; what it prints goes to ``log.txt`` in the folder.

    Args:
        module: The module, behind that of a launcher if there is one.
        cfg: What it runs; left beside the folder.
        folder: Its ``work_dir``.
        flags: Behind the config.
        **environment: Variables of the process besides those of this one.

    Raises:
        RuntimeError: It failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    config, log = _config_file(folder), folder / 'log.txt'
    cfg.dump(config)
    with log.open('a') as file:
        command = [sys.executable, '-m', *module, str(config), *flags]
        if _is_ending.is_set():
            raise RuntimeError('not started, since this process was told to end')
        with subprocess.Popen(command, stdout=file, stderr=subprocess.STDOUT, env=os.environ | environment) as process:
            _running.add(process)
            try:
                if _is_ending.is_set():  # since the process was made
                    process.terminate()
                status = process.wait()
            except BaseException:
                process.terminate()  # a training saves a checkpoint
                process.wait()
                raise
            finally:
                _running.discard(process)
    if status:
        raise RuntimeError(f'exit status {status}, see {log}')


@contextmanager
def ending_together() -> Iterator[None]:
    """Context in which SIGTERM to this process ends the runs, too; each saves a checkpoint and can be resumed."""

    def end(number: int, _) -> None:
        _is_ending.set()
        for process in [*_running]:
            process.terminate()
        raise SystemExit(128 + number)

    _is_ending.clear()
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _config_file(folder: Path) -> Path:
    """Beside a run's folder; within, the runner leaves its own copy, to which the train command has added."""
    return folder.with_suffix('.py')
