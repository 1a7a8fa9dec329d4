"""The commands. One that is interrupted ends with one line instead of a traceback, even while it is being imported."""

import sys
from types import TracebackType


def report_uncaught(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    """In place of Python's ``sys.excepthook``: the line that says what was interrupted; other errors as usual."""
    if issubclass(kind, KeyboardInterrupt):
        print(f'Interrupted. {error}'.rstrip(), file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, traceback)


sys.excepthook = report_uncaught
