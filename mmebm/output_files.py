"""Files and folders that are written: whole or not at all, by one process, and never over what is there."""

import contextlib
import os
from contextlib import AbstractContextManager
from pathlib import Path

from filelock import FileLock, Timeout


def check_new(folder: Path, flag: str = '', advice: str = 'name a new one, or remove it first') -> None:
    """Check that a folder is new or empty.

    Args:
        folder: The folder.
        flag: The option that named it, for the error.
        advice: What to do, for the error.

    Raises:
        FileExistsError: It holds something, or is a file.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        named = f'{flag} {folder}'.lstrip()
        raise FileExistsError(f'{named} exists and is not an empty folder; {advice}')


def locked(folder: Path) -> AbstractContextManager:
    """Lock a folder, which is made if it is not there, until the end of the context that is returned.

    Raises:
        FileExistsError: Another process has locked it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return FileLock(folder / '.lock').acquire(timeout=0)
    except Timeout:
        raise FileExistsError(
            f'{folder}: another process is writing there; wait until it has ended, or give another --work-dir'
        ) from None


def partial_file(path: Path) -> Path:
    """Where a file is while it is being written: hidden, beside it, on the same file system."""
    return path.with_name(f'.{path.name}.partial')


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file beside the final one, sync it to the disk, and put it in the other's place.

    Raises:
        OSError: The disk is full, for instance; what was at ``path`` is untouched, and nothing is left beside it.
    """
    path = Path(path)
    partial = partial_file(path)
    try:
        with partial.open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power; some network file systems cannot sync folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
