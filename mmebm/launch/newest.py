"""Which checkpoint of a work folder is the newest whole one."""

import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from mmengine.logging import print_log

from mmebm.engine.resuming.settings import PARTS
from mmebm.unpickling import unpickle


def newest_whole(folder: Path, last: Path | None) -> Path | None:
    """The newest checkpoint of a training that is whole; a warning names those that were passed over.

    Args:
        folder: Of the checkpoints; those of the best score cannot be resumed from and are left out.
        last: The one that was saved last, as far as known.

    Returns:
        ``last`` if it is whole; None if no checkpoint is.
    """
    passed_over = []
    for path in [*([last] if last else []), *_by_age(folder, last, passed_over)]:
        reason = fault(path)
        if reason is None:
            if passed_over or last is None:
                skipped = ', '.join(passed_over) or 'no file names the last one'
                print_log(f'Resuming from {path}, the newest whole checkpoint; passed over: {skipped}', 'current', 30)
            return path
        passed_over.append(f'{path.name} ({reason})')
    return None


def fault(path: Path) -> str | None:
    """What is wrong with a checkpoint's file, or None: whether it is there, complete, and as it was written.

    All bytes are read and compared with the checksums that torch writes. A folder of DeepSpeed, and a file in the
    format before torch 1.6, are not checked.
    """
    if path.is_dir():
        return None
    if not path.is_file():
        return 'not there'
    with path.open('rb') as file:
        is_zip = file.read(2) == b'PK'
    if not is_zip:
        return None if path.stat().st_size else 'empty'
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        return f'truncated or damaged: {error}'
    return damaged and f'damaged: wrong checksum of {damaged}'


def _by_age(folder: Path, last: Path | None, passed_over: list[str]) -> Iterator[Path]:
    """Other checkpoints of trainings in a folder, the newest first; those that cannot be read are noted."""
    found = []
    for path in sorted(folder.glob('*.pth')):
        if path == last or path.name.startswith('best_'):
            continue
        try:
            checkpoint = unpickle(path)
        except (ValueError, OSError) as error:
            passed_over.append(f'{path.name} ({str(error).removeprefix(str(path)).strip()})')
            continue
        if isinstance(checkpoint, Mapping) and {*PARTS} <= checkpoint.keys() and 'iter' in checkpoint['meta']:
            meta = checkpoint['meta']
            found.append((str(meta.get('time', '')), meta['iter'], path))
    yield from (path for *_, path in sorted(found, reverse=True))
