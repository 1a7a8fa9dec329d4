"""Folders that commands write to."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout


def check_new(folder: Path, flag: str = '') -> None:
    """Check that a folder is new or empty.

    Args:
        folder: The folder.
        flag: The option that named it, for the error.

    Raises:
        FileExistsError: It holds something, or is a file.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        named = f'{flag} {folder}'.lstrip()
        raise FileExistsError(f'{named} exists and is not an empty folder; name a new one, or remove it first')


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Context in which no other process that asks for it writes to a folder; it is made if it is not there.

    Raises:
        FileExistsError: Another process is writing to it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / '.lock')
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f'{folder}: another process is writing there; wait until it has ended, or give another --work-dir'
        ) from None
    try:
        yield
    finally:
        lock.release()
