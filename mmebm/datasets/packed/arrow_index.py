"""An index of the images in Arrow and Parquet files: which file, and which of its rows."""

import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmebm.datasets.load_image import BrokenImageError
from mmebm.datasets.packed.arrow_columns import class_names_of, image_column_of, label_column_of
from mmebm.datasets.packed.arrow_files import DAMAGED, ArrowFile, ParquetFile, in_a_line, open_file, pyarrow
from mmebm.datasets.packed.arrow_layout import find_files
from mmebm.error_text import first_few, printable
from mmebm.provenance import digest_of

OPEN_FILES = 32


class ArrowIndex:
    """Rows of all files. A copy, also one in another process, opens the files again and takes no content along.

    Args:
        folder: Of the data set.
        split: Whose files to take; may be empty if there is only one.
        image_column: Name of the column of images; may be empty if there is only one.
        has_labels: Whether to read the labels, of which 4 bytes per image stay in memory.
        label_column: Name of their column; may be empty where it can be told.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: There is no such folder, or no file in it.
        ValueError: A file is damaged or differs from the others in its columns or classes, or a label is none.

    Attributes:
        files: Paths relative to the folder.
        image_column: As found.
    """

    def __init__(
        self, folder: str, split: str = '', image_column: str = '', has_labels: bool = False, label_column: str = ''
    ) -> None:
        pyarrow()  # before anything is looked for
        self._options = folder, split, image_column, has_labels, label_column
        self.folder, self.files = folder, find_files(folder, split)
        self.image_column, self.label_column = image_column, label_column
        self.classes: list[str] | None = None
        rows, labels = [], []
        for number, name in enumerate(self.files):
            path = Path(folder, name)
            file = open_file(path)
            self.image_column = image_column_of(file.schema, self.image_column, path)
            if has_labels:
                self.label_column = label_column_of(file.schema, self.label_column, path)
                self._same_classes(class_names_of(file.schema, self.label_column, path), number)
                labels.append(self._labels_of(file, path))
            rows.append(file.rows)
        self._ends = np.cumsum(rows)
        if not len(self):
            raise ValueError(f'HFImages: no image in {folder!r}: {first_few(self.files)} have no rows')
        self._labels = np.concatenate(labels) if has_labels else np.empty(0, np.int32)
        self.files_sha256 = str(digest_of(f'{name} {count}' for name, count in zip(self.files, rows, strict=True)))
        self._open_files: OrderedDict[int, ArrowFile | ParquetFile] = OrderedDict()
        self._process = os.getpid()
        self._check_first()

    def __len__(self) -> int:
        return int(self._ends[-1])

    def name(self, row: int) -> str:
        """File, row in it, and the name that the image had, as ``data/train-00000-of-00005.parquet/17/cat.jpg``."""
        number, place = self._place(row)
        value = self._value(number, place)
        path = value.get('path') if isinstance(value, dict) else None
        return f'{self.files[number]}/{place}' + (f'/{PurePosixPath(path).name}' if isinstance(path, str) else '')

    def content(self, row: int) -> bytes:
        """The bytes of an image's file.

        Raises:
            BrokenImageError: The row has none.
            ValueError: The file cannot be read there.
        """
        value = self._value(*self._place(row))
        content = value.get('bytes') if isinstance(value, dict) else value
        if content is None:
            raise BrokenImageError(f'{printable(str(Path(self.folder, self.name(row))))}: has no bytes')
        return content

    def labels(self, rows: Sequence[int] | NDArray) -> NDArray:
        """Numbers of the classes of images."""
        return self._labels[rows]

    def _place(self, row: int) -> tuple[int, int]:
        """The number of the file and the row in it."""
        number = int(np.searchsorted(self._ends, row, side='right'))
        return number, row - (int(self._ends[number - 1]) if number else 0)

    def _value(self, number: int, place: int) -> Any:
        """What stands in the column of images: bytes, or a dict with them, or None."""
        try:
            return self._open(number).value(self.image_column, place).as_py()
        except (ValueError, OSError, pyarrow().ArrowException) as error:
            path = Path(self.folder, self.files[number])
            raise ValueError(f'HFImages: {path}: row {place} cannot be read ({in_a_line(error)}); {DAMAGED}') from error

    def _open(self, number: int) -> ArrowFile | ParquetFile:
        """A file. A few stay open; forked processes open their own."""
        if self._process != os.getpid():
            self._process, self._open_files = os.getpid(), OrderedDict()
        file = self._open_files.pop(number, None) or open_file(Path(self.folder, self.files[number]))
        self._open_files[number] = file
        if len(self._open_files) > OPEN_FILES:
            self._open_files.popitem(last=False)
        return file

    def _same_classes(self, classes: list[str] | None, number: int) -> None:
        if number and classes != self.classes:
            raise ValueError(
                f'HFImages: {self.files[0]} and {self.files[number]} in {self.folder!r} name other classes '
                f'({first_few(self.classes or [])}; {first_few(classes or [])}), so that a label means another one'
            )
        self.classes = classes

    def _labels_of(self, file: ArrowFile | ParquetFile, path: Path) -> NDArray:
        column = file.column(self.label_column)
        if column.null_count:
            raise ValueError(f'HFImages: {path}: {column.null_count} of {file.rows} images have no label')
        labels = column.to_numpy()
        highest = len(self.classes) - 1 if self.classes else np.iinfo(np.int32).max
        wrong = (labels < 0) | (labels > highest)
        if wrong.any():
            raise ValueError(
                f'HFImages: {path}: column {self.label_column!r} has {labels[wrong][0]} in row {int(wrong.argmax())}, '
                f'which is no class (0 to {highest}); splits for tests often have no labels'
            )
        return labels.astype(np.int32)

    def _check_first(self) -> None:
        """Refuse files that hold paths in place of images, before all of them count as broken."""
        value = self._value(*self._place(0))
        if isinstance(value, dict) and value.get('bytes') is None and value.get('path'):
            raise ValueError(
                f'HFImages: {self.files[0]} in {self.folder!r} holds no images, only paths, the first '
                f"{printable(value['path'])!r}. `save_to_disk` of HuggingFace's datasets writes the images themselves"
            )

    def __reduce__(self) -> tuple:
        return type(self), self._options


def read_classes(folder: str, split: str, label_column: str) -> list[str] | None:
    """Names of the classes that the first file tells; None if it does not. Options and errors: :class:`ArrowIndex`."""
    pyarrow()
    path = Path(folder, find_files(folder, split)[0])
    schema = open_file(path).schema
    return class_names_of(schema, label_column_of(schema, label_column, path), path)
