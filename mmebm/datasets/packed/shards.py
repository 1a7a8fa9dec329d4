"""Tar shards and their index: where each image lies, read through memory maps that all processes share.

A folder of shards holds ``shard-00000.tar``, ... and ``index/``: ``members.npy``, a row per image, ``names.bin``, the
names one after the other, and ``about.json``.
"""

import json
import os
import tarfile
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Of an image: the number of its shard, where its bytes begin in it, how many they are, its class (-1: none), and where
# its name ends among all names.
MEMBER = np.dtype([('shard', '<u4'), ('label', '<i4'), ('offset', '<u8'), ('length', '<u8'), ('name_end', '<u8')])
HEADER = tarfile.BLOCKSIZE  # bytes before each member
FORMAT = 1
OPEN_FILES = 32


def read_about(folder: str | Path) -> dict[str, Any]:
    """What an index says of its shards.

    Returns:
        ``format``; ``images``, their number; ``name_bytes``, of all names; ``classes``, names in the order of their
        numbers, or None; ``shards``, pairs of a file's name and its size in bytes; and ``files_sha256``, a hash of the
        names, as of :func:`mmebm.provenance.describe_data`.

    Raises:
        FileNotFoundError: The folder has no index.
        ValueError: The index is damaged, or of a later version.
    """
    path = Path(folder, 'index', 'about.json')
    if not path.is_file():
        begun = Path(folder, 'pack.json').is_file()
        reason = 'mmebm-pack has not finished it: run it again' if begun else 'mmebm-pack FOLDER --out SHARDS makes one'
        raise FileNotFoundError(f'{str(folder)!r} is no folder of shards, since {path} is missing; {reason}')
    try:
        about = json.loads(path.read_text())
        about = {key: about[key] for key in ('format', 'images', 'name_bytes', 'classes', 'shards', 'files_sha256')}
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f'{path} is damaged ({error}); {REMAKE}') from error
    if about['format'] != FORMAT:
        raise ValueError(f'{path} has format {about["format"]}; this version of mmebm reads {FORMAT}')
    return about


REMAKE = 'remove the folder and run mmebm-pack again, or copy it once more from where it is whole'


class ShardIndex:
    """Members of all shards. A copy, also one in another process, opens the files again and takes no content along.

    Args:
        folder: Of the shards.

    Raises:
        FileNotFoundError: The index or a shard is missing.
        ValueError: A file of the index, or a shard, does not have the size that the index says.
    """

    def __init__(self, folder: str) -> None:
        self.folder, self.about = folder, read_about(folder)
        self.shards = [Path(folder, name) for name, _ in self.about['shards']]
        for path, (_, size) in zip(self.shards, self.about['shards'], strict=True):
            _check_size(path, size)
        self.classes: list[str] | None = self.about['classes']
        self.files_sha256: str = self.about['files_sha256']
        index = Path(folder, 'index')
        _check_size(index / 'names.bin', self.about['name_bytes'])
        try:
            self.members = np.load(index / 'members.npy', mmap_mode='r')
        except (OSError, ValueError, EOFError) as error:
            raise ValueError(f'{index / "members.npy"} is missing or damaged ({error}); {REMAKE}') from error
        if self.members.dtype != MEMBER or self.members.shape != (self.about['images'],):
            raise ValueError(
                f'{index / "members.npy"} holds {self.members.shape} values of {self.members.dtype}, not the '
                f'{self.about["images"]} members that about.json counts; {REMAKE}'
            )
        self._names = np.memmap(index / 'names.bin', np.uint8, 'r')
        self._files: OrderedDict[int, Any] = OrderedDict()

    def __len__(self) -> int:
        return len(self.members)

    def name(self, row: int) -> str:
        """Path of an image in the folder that was packed."""
        start = int(self.members['name_end'][row - 1]) if row else 0
        return os.fsdecode(self._names[start : int(self.members['name_end'][row])].tobytes())

    def content(self, row: int) -> bytes:
        """The bytes of an image's file.

        Raises:
            ValueError: The shard is not the one that was indexed.
        """
        member = self.members[row]
        number, offset, length = int(member['shard']), int(member['offset']), int(member['length'])
        found = os.pread(self._open(number).fileno(), HEADER + length, offset - HEADER)
        try:
            size = tarfile.TarInfo.frombuf(found[:HEADER], 'utf-8', 'surrogateescape').size
        except tarfile.HeaderError:
            size = -1
        if size != length or len(found) != HEADER + length:
            raise ValueError(
                f'{self.shards[number]} has changed since it was indexed: no member of {length} bytes begins at byte '
                f'{offset}; {REMAKE}'
            )
        return found[HEADER:]

    def labels(self, rows: Sequence[int] | NDArray) -> NDArray:
        """Numbers of the classes of images; -1: none."""
        return self.members['label'][rows]

    def _open(self, number: int) -> Any:
        """A shard's file. A few stay open; one that another thread still reads is closed after that."""
        file = self._files.pop(number, None)
        if file is None:
            file = self.shards[number].open('rb', buffering=0)
        self._files[number] = file
        if len(self._files) > OPEN_FILES:
            self._files.popitem(last=False)
        return file

    def __reduce__(self) -> tuple:
        return type(self), (self.folder,)


def _check_size(path: Path, size: int) -> None:
    if not path.is_file():
        raise FileNotFoundError(f'{path} is missing, which the index beside it names; {REMAKE}')
    found = path.stat().st_size
    if found != size:
        kind = 'is cut off' if found < size else 'has changed'
        raise ValueError(f'{path} {kind}: {found} bytes instead of {size}; {REMAKE}')
