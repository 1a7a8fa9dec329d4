"""What data sets share that hold many images in a file: an index says where each is, the pipeline gets its bytes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import BaseDataset
from numpy.typing import NDArray

from mmebm.datasets.classes import check_order
from mmebm.datasets.load_image import LoadImage
from mmebm.datasets.skipping import SkipsBrokenImages


class Index(Protocol):
    """Where the images are. A copy in another process opens the files again and takes no content along.

    Attributes:
        folder: Of the files.
        classes: Names of the classes in the order of their numbers, None if they are not known.
        files_sha256: A hash that differs if the files are others.
    """

    folder: str
    classes: list[str] | None
    files_sha256: str

    def __len__(self) -> int: ...

    def name(self, row: int) -> str:
        """What an image is called, below the folder."""

    def content(self, row: int) -> bytes:
        """The bytes of an image's file."""

    def labels(self, rows: Sequence[int] | NDArray) -> NDArray:
        """The classes of images."""


class Rows(Sequence):
    """What a data set of mmengine knows of its images, made when asked for.

    Args:
        index: Of the images.
        has_labels: Whether to give the classes.
        rows: Of the index that belong to the data set; all by default.
    """

    def __init__(self, index: Index, has_labels: bool, rows: Any = None) -> None:
        self.index, self.has_labels = index, has_labels
        self.rows = range(len(index)) if rows is None else rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: Any) -> Any:
        if isinstance(place, slice):
            return Rows(self.index, self.has_labels, self.rows[place])
        row = int(self.rows[place])
        info: dict[str, Any] = dict(img_path=str(Path(self.index.folder, self.index.name(row))))
        return info | dict(gt_label=int(self.index.labels([row])[0])) if self.has_labels else info

    def take(self, places: Sequence[int]) -> 'Rows':
        """The images at places among these."""
        rows = self.rows
        chosen = np.fromiter((rows[place] for place in places), np.int64, len(places))
        return Rows(self.index, self.has_labels, chosen)

    def labels(self) -> NDArray:
        """The class of each image, (len,)."""
        return np.asarray(self.index.labels(np.asarray(self.rows)), np.int64)

    def content(self, place: int) -> bytes:
        """The bytes of an image's file."""
        return self.index.content(int(self.rows[place]))


class _FromMemory(BaseDataset):
    """Gives the pipeline the bytes of an image's file as ``img_bytes``."""

    def prepare_data(self, idx: int) -> Any:
        """Image ``idx`` after the pipeline."""
        return self.pipeline(dict(self.get_data_info(idx), img_bytes=self.data_list.content(idx)))


class PackedImages(SkipsBrokenImages, _FromMemory):
    """Images of which a file holds many. Subclasses open the index, in ``load_data_list``.

    Args:
        data_root: The folder.
        with_label: Whether to give the classes.
        pipeline: Transforms, which begin with :class:`LoadImage`.
        lazy_init: Whether to postpone opening the index to ``full_init``.
        **kwargs: ``indices``, ``metainfo``, ``test_mode``, ``max_refetch`` and ``classes`` of mmpretrain's data sets.

    Raises:
        ValueError: No folder is given, an option has no effect, or the pipeline reads files.
    """

    ROOT = ''  # what `data_root` is to be, for messages

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        pipeline: Sequence[dict | Callable] = (),
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        name = type(self).__name__
        if not data_root:
            raise ValueError(f'{name}: no folder given; set `data_root` to {self.ROOT}.')
        for option in ('ann_file', 'data_prefix', 'filter_cfg'):
            if kwargs.get(option):
                raise ValueError(f'{name}: {option}={kwargs[option]!r} has no effect here; leave it out')
        kwargs = {option: value for option, value in kwargs.items() if option not in ('ann_file', 'data_prefix')}
        self.with_label = with_label
        super().__init__(
            ann_file='', data_root=data_root, pipeline=pipeline, lazy_init=True, serialize_data=False, **kwargs
        )
        for step in self.pipeline.transforms:
            if isinstance(step, LoadImageFromFile) and not isinstance(step, LoadImage):
                raise ValueError(
                    f'{name}: {type(step).__name__} in the pipeline reads files of one image each; set its '
                    "type='mmebm.LoadImage'"
                )
        if not lazy_init:
            self.full_init()

    @property
    def img_prefix(self) -> str:
        """The folder, for messages."""
        return self.data_root

    @property
    def files_sha256(self) -> str | None:
        """The hash that the index has; None of a part of the images."""
        self.full_init()
        index = self.data_list.index
        return index.files_sha256 if len(self) == len(index) else None

    def filter_data(self) -> Rows:
        """All images."""
        return self.data_list

    def get_gt_labels(self) -> NDArray:
        """The class of each image, (len,); raises ValueError without ``with_label``."""
        return self._labelled().labels()

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of image ``idx`` in a list; raises as ``get_gt_labels``."""
        return self._labelled().take([idx]).labels().tolist()

    def _labelled(self) -> Rows:
        self.full_init()
        if not self.with_label:
            raise ValueError(f'{type(self).__name__}: labels of {self.data_root!r} were not read; set with_label=True')
        return self.data_list

    def extra_repr(self) -> list[str]:
        """The folder, for ``repr``."""
        return [f'Folder: \t{self.data_root}']

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> Rows:
        if isinstance(indices, int):
            return super()._get_unserialized_subset(indices)
        return self.data_list.take(indices)

    def _name_classes(self, classes: Sequence[str]) -> None:
        if self.CLASSES is not None and len(self.CLASSES) != len(classes):
            raise ValueError(
                f'{type(self).__name__}: {self.data_root!r} has {len(classes)} classes, but the config names '
                f'{len(self.CLASSES)}; correct `metainfo`, or leave it out'
            )
        check_order(classes, self.CLASSES or (), f'{type(self).__name__}: {self.data_root!r} and `metainfo`')
        self._metainfo['classes'] = self.CLASSES or tuple(classes)
