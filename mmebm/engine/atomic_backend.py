"""mmengine's storage backend whose files are either the old ones or the new ones, whenever the machine stops."""

from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend

from mmebm.output_files import write_atomically


@register_backend('mmebm.atomic', force=True)
class AtomicBackend(LocalBackend):
    """mmengine's backend of local files, whose ``put`` never leaves part of a file under the final name.

    Any caller of mmengine uses it by ``backend_args=dict(backend='mmebm.atomic')``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write bytes to a file, whose folder is made if it is missing."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        write_atomically(filepath, obj)
