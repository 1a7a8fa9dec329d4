"""What a run shows on the terminal: progress, results and what goes wrong; the rest is in its log file alone."""

import functools
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

from mmengine.logging import MMLogger

# How messages of mmengine start that fill a terminal without telling how a run does.
FILE_ONLY = re.compile(
    r'\s*-*\s*System environment'
    r'|Config:\n'
    r'|Hooks will be executed in the following order'
    r'|Exp name: '
    r'|paramwise_options -- '
    r'|\S+ is skipped since its requires_grad=False'  # whoever froze it knows
    r'|Distributed training is not used, all SyncBatchNorm'
    r'|"FileClient" will be deprecated'  # of mmengine's own hooks
    r'|"HardDiskBackend" is the alias'
)


def is_for_terminal(record: logging.LogRecord) -> bool:
    """Whether a record of the log is shown on the terminal too."""
    return not FILE_ONLY.match(record.getMessage())


@contextmanager
def concise_terminal() -> Iterator[None]:
    """Context in which loggers that have a file are made so that the terminal shows only what ``is_for_terminal``.

    mmengine's runners make their loggers themselves, and write their environment and config at once.
    """
    create = MMLogger.__init__

    @functools.wraps(create)
    def create_concise(self, *args, **kwargs) -> None:
        create(self, *args, **kwargs)
        streams = [handler for handler in self.handlers if not isinstance(handler, logging.FileHandler)]
        if len(streams) == len(self.handlers):
            return
        for handler in streams:
            handler.addFilter(is_for_terminal)
        self.info(f'Environment, config and all messages are in {self.log_file}')

    MMLogger.__init__ = create_concise  # type: ignore[method-assign]
    try:
        yield
    finally:
        MMLogger.__init__ = create  # type: ignore[method-assign]
