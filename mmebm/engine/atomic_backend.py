"""Files that are either the old ones or the new ones, whenever the process or the machine stops."""

import contextlib
import os
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend


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


@register_backend('mmebm.atomic', force=True)
class AtomicBackend(LocalBackend):
    """mmengine's backend of local files, whose ``put`` never leaves part of a file under the final name.

    Any caller of mmengine uses it by ``backend_args=dict(backend='mmebm.atomic')``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, whose folder is made if it is missing."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)


def _sync_folder(folder: Path) -> None:
    """Make the new name survive a loss of power; some network file systems cannot sync folders."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
