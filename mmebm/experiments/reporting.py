"""How far a training in another process is, read from its log while it runs."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from mmengine.config import Config

from mmebm.report.run import json_lines

# Seconds between two lines.
INTERVAL = 20.0


def say(line: str) -> None:
    """Print a line at once, to the standard error: the standard output is for results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def reporting(name: str, cfg: Config, folder: Path, say: Callable[[str], None] = say) -> Iterator[None]:
    """Context in which lines say how far the training in a folder is, as often as its log has news.

    Args:
        name: Of the training, for its lines.
        cfg: Which is trained.
        folder: Its ``work_dir``.
        say: Prints a line.
    """
    start, ended = time.time(), threading.Event()

    def watch() -> None:
        before = None
        while not ended.wait(INTERVAL):
            now = position(cfg, folder, start)
            if now is not None and now != before:
                say(f'{name}: {now}, {time.time() - start:.0f} s')
                before = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def position(cfg: Config, folder: Path, since: float = 0.0) -> str | None:
    """The epoch or iteration in the last line of a training's log; None if there is none.

    Args:
        cfg: Which is trained.
        folder: Its ``work_dir``.
        since: Time before which logs are those of earlier processes.
    """
    logs = [path for path in folder.glob('*/vis_data/scalars.json') if path.stat().st_mtime >= since]
    lines = [*json_lines(max(logs, key=lambda path: path.stat().st_mtime))] if logs else []
    for line in reversed(lines):
        for key, total in (('epoch', 'max_epochs'), ('iter', 'max_iters')):
            if key in line and total in cfg.train_cfg:
                return f'{key.replace("iter", "iteration")} {line[key]} of {cfg.train_cfg[total]}'
    return None
