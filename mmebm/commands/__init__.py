"""The commands. One that is interrupted ends with one line instead of a traceback, even while it is being imported."""

import atexit
import os
import signal
import sys
from types import TracebackType

INTERRUPTED: list[BaseException] = []


def report_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """In place of Python's ``sys.excepthook``: the line that says what was interrupted; other errors as usual."""
    if issubclass(kind, KeyboardInterrupt):
        INTERRUPTED.append(error)
        print(f'Interrupted. {error}'.rstrip(), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


@atexit.register  # now, so that it runs after what a training registers, which ends its workers
def end_by_signal() -> None:
    """End an interrupted process by the signal, by which shells and launchers know it.

    Python does so by itself, but 3.11 forgets it if any function at exit runs source text, as that of PyTorch's
    compiler does where ``tabulate`` is installed.
    """
    if INTERRUPTED:
        sys.stdout.flush()
        sys.stderr.flush()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)


sys.excepthook = report_uncaught
