"""How a run ends that does not finish: what is told, and by which exit code."""

import errno
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmengine.dist import get_rank, get_world_size

from mmebm.engine.hooks.atomic_checkpoint_hook import CheckpointNotWrittenError
from mmebm.engine.resuming.stop_signals import REQUEUE, STOP

# In the work folder: the run was stopped by a signal and can go on. Launchers change exit codes of several processes.
MARK = 'requeue'

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# How a process learns that another one has gone; NCCL and gloo say it in RuntimeErrors of several kinds.
LOST = ('Connection closed by peer', 'Connection reset by peer', 'Broken pipe', 'Socket Timeout', 'NCCL', 'gloo')


@contextmanager
def told_why(work_dirs: Sequence[Path]) -> Iterator[None]:
    """Context of a training that says how to go on where it ends early.

    Args:
        work_dirs: The run's folder, once it is known.

    Raises:
        KeyboardInterrupt: With the last checkpoint as its text.
        OSError: A disk is full; with the same.
        SystemExit: With the code ``REQUEUE``, after a signal.
    """
    STOP.before_end = lambda: _mark(work_dirs)
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_resume(work_dirs)) from None
    except SystemExit as end:
        if end.code == REQUEUE:
            _mark(work_dirs)
        raise
    except Exception as error:
        if STOP.received:  # the others have left, or the connection has
            traceback.print_exc()
            _mark(work_dirs)
            raise SystemExit(REQUEUE) from None
        if isinstance(error, OSError) and error.errno in FULL and not isinstance(error, CheckpointNotWrittenError):
            told = how_to_resume(work_dirs) or 'no checkpoint was written yet'
            text = f'{error.strerror}: {error.filename or "a file of the run"}. Make room; {told}'
            raise OSError(error.errno, text) from error
        if get_world_size() > 1 and isinstance(error, RuntimeError) and any(text in str(error) for text in LOST):
            print(
                f'Process {get_rank()} of {get_world_size()} lost another one, which ended before (killed for want of '
                'memory, for instance): its launcher names it, and its own error is above, if it had one. '
                f'{how_to_resume(work_dirs)}',
                file=sys.stderr,
            )
        raise


def how_to_resume(work_dirs: Sequence[Path]) -> str:
    """Where an interrupted run has left its last checkpoint, if it has; its folder is known once it has a config."""
    files = [folder / 'last_checkpoint' for folder in work_dirs]
    checkpoints = [file.read_text().strip() for file in files if file.is_file()]
    return f'{checkpoints[0]} is the last checkpoint; --resume continues from it' if checkpoints else ''


def clear_mark(work_dir: Path) -> None:
    """Forget that a run before was stopped by a signal."""
    (work_dir / MARK).unlink(missing_ok=True)


def _mark(work_dirs: Sequence[Path]) -> None:
    for folder in work_dirs:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / MARK).write_text(f'{STOP.received or "signal to another process"}\n')
