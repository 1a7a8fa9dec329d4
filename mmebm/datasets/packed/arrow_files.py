"""Rows of Arrow files, which are mapped into memory, and of Parquet files, of which a group is read at a time."""

import bisect
import importlib
from pathlib import Path
from typing import Any

import numpy as np

DAMAGED = 'copy or download it again'


def pyarrow(module: str = 'pyarrow') -> Any:
    """A module of pyarrow.

    Raises:
        ImportError: It is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            'HFImages reads Arrow and Parquet files by pyarrow: pip install "mmebm[tables]", or pip install pyarrow'
        ) from error


def in_a_line(error: Exception) -> str:
    """A message of pyarrow, which may have several lines."""
    return ' '.join(str(error).split())


class ArrowFile:
    """An Arrow file, streamed or not. Its rows stay on the disk until they are read.

    Args:
        path: Of the file.

    Raises:
        ValueError: It is damaged, or compressed.

    Attributes:
        schema: Names and types of its columns.
        rows: Their number.
    """

    def __init__(self, path: Path) -> None:
        pa, ipc = pyarrow(), pyarrow('pyarrow.ipc')
        self._map = pa.memory_map(str(path)).read_buffer()
        is_stream = self._map[:6].to_pybytes() != b'ARROW1'
        if is_stream and self._map[-8:].to_pybytes() != b'\xff\xff\xff\xff\0\0\0\0':
            raise ValueError('is cut off: the mark of its end is missing')
        options = ipc.IpcReadOptions(use_threads=False)
        reader = (ipc.open_stream if is_stream else ipc.open_file)(self._map, options=options)
        batches = reader if is_stream else map(reader.get_batch, range(reader.num_record_batches))
        self._table = pa.Table.from_batches(map(self._mapped, batches), reader.schema)
        self.schema, self.rows = self._table.schema, self._table.num_rows

    def value(self, column: str, row: int) -> Any:
        """What stands in a row."""
        return self._table.column(column)[row]

    def column(self, column: str) -> Any:
        """All rows of a column."""
        return self._table.column(column)

    def _mapped(self, batch: Any) -> Any:
        """The same batch, if it lies in the file as it is in memory."""
        start, end = self._map.address, self._map.address + self._map.size
        buffers = [buffer for column in batch.columns for buffer in column.buffers() if buffer and buffer.size]
        if not all(start <= buffer.address < end for buffer in buffers):
            raise ValueError('is compressed, so that single images cannot be read from it; write it uncompressed')
        return batch


class ParquetFile:
    """A Parquet file. The group of rows that was read last is kept.

    Args:
        path: Of the file.

    Raises:
        ValueError: It is damaged.

    Attributes:
        schema: Names and types of its columns.
        rows: Their number.
    """

    def __init__(self, path: Path) -> None:
        self._file = pyarrow('pyarrow.parquet').ParquetFile(path, memory_map=True)
        about = self._file.metadata
        self.schema, self.rows = self._file.schema_arrow, about.num_rows
        self._ends = np.cumsum([about.row_group(i).num_rows for i in range(about.num_row_groups)]).tolist()
        self._kept: tuple[str, int, Any] = ('', -1, None)

    def value(self, column: str, row: int) -> Any:
        """What stands in a row."""
        group = bisect.bisect_right(self._ends, row)
        if self._kept[:2] != (column, group):
            self._kept = column, group, self._file.read_row_group(group, [column], use_threads=False).column(0)
        return self._kept[2][row - (self._ends[group - 1] if group else 0)]

    def column(self, column: str) -> Any:
        """All rows of a column."""
        return self._file.read([column], use_threads=False).column(0)


def open_file(path: Path) -> ArrowFile | ParquetFile:
    """Open a file by its ending.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: It is missing.
        ValueError: It is damaged, or no such file.
    """
    if not path.is_file():
        raise FileNotFoundError(f'HFImages: {path} is missing, which state.json beside it names; {DAMAGED}')
    with path.open('rb') as file:
        if file.read(19) == b'version https://git':
            raise ValueError(f'HFImages: {path} is a placeholder of Git LFS; get the file by `git lfs pull`')
    kind = ParquetFile if path.suffix.lower() == '.parquet' else ArrowFile
    try:
        return kind(path)
    except (ValueError, OSError, pyarrow('pyarrow').ArrowException) as error:
        raise ValueError(f'HFImages: {path}: {in_a_line(error)}; {DAMAGED}') from error
