"""Signals by which a cluster takes a machine back: noted, and obeyed when nothing is lost by it."""

import atexit
import multiprocessing.util  # before our own function is registered, so that multiprocessing's runs after it
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)

# Exit code of a run that stopped because of a signal and can be resumed: EX_TEMPFAIL of sysexits.h, "try again".
REQUEUE = 75

# Seconds that a process which waits for others has to obey by itself.
GRACE = 1.0


class StopSignals:
    """What this process was told.

    Attributes:
        received: Name of the first signal, such as ``'SIGTERM'``; None if there was none.
        nothing_to_save: Whether the process ends at once on a signal, as before its first iteration is done, which may
            take minutes to compile.
        before_end: Called before a process ends that cannot raise SystemExit.
    """

    before_end: Callable[[], None] = staticmethod(lambda: None)

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget what was told, at the start of a training."""
        self.received: str | None = None
        self.nothing_to_save = True
        self._owner = os.getpid()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Note a signal; raises SystemExit while there is nothing to save."""
        if os.getpid() != self._owner:  # a worker that was just forked
            return
        if self.received is None:
            self.received = signal.Signals(number).name
        if self.nothing_to_save:
            self.nothing_to_save = False  # a second signal must not interrupt the end
            self._say()
            raise SystemExit(REQUEUE)

    def end(self, number: int) -> None:
        """End this process from another thread, since the main one does not get to ``handle``."""
        self.received = signal.Signals(number).name
        self._say()
        self.before_end()
        os._exit(REQUEUE)

    def _say(self) -> None:
        text = f'{self.received} before the first iteration was done: there is nothing new to save'
        print(text, file=sys.stderr, flush=True)


STOP = StopSignals()


@contextmanager
def catching_signals() -> Iterator[StopSignals]:
    """Context in which this process notes the signals; without effect in a thread, to which none is sent."""
    if threading.current_thread() is not threading.main_thread():
        yield STOP
        return
    STOP.reset()
    before = {number: signal.signal(number, STOP.handle) for number in SIGNALS}
    try:
        yield STOP
    finally:
        STOP.reset()  # a later training of this process is told anew
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Context of a call that waits for other processes: a signal ends this one.

    Python calls handlers only when such a call returns, which it may do after half an hour. Without effect where
    :func:`catching_signals` has none.
    """
    if signal.getsignal(SIGNALS[0]) != STOP.handle or threading.current_thread() is not threading.main_thread():
        yield
        return
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer)
    watch = threading.Thread(target=_watch, args=(reader,), daemon=True)
    watch.start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)
        watch.join()
        os.close(reader)


def _watch(reader: int) -> None:
    """End the process if it does not obey a signal by itself; the numbers of signals come through a pipe."""
    while found := os.read(reader, 1):
        if found[0] in SIGNALS:
            time.sleep(GRACE)
            if STOP.received is None:
                STOP.end(found[0])


class IgnoresSignals:
    """A ``worker_init_fn`` that lets the main process alone decide: workers would die, and it with them.

    Args:
        init_fn: Called before, if any.
    """

    def __init__(self, init_fn: Callable[[int], Any] | None):
        self.init_fn = init_fn

    def __call__(self, worker_id: int) -> None:
        """Ignore the signals, then do as before."""
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        if self.init_fn is not None:
            self.init_fn(worker_id)


@atexit.register
def kill_workers() -> None:
    """At the end of a process: what multiprocessing does, by a signal that workers do not ignore; it would wait."""
    for worker in multiprocessing.active_children():
        if worker.daemon:
            worker.kill()
