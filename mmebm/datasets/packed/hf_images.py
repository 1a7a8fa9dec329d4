"""Images of a HuggingFace data set on disk."""

import hashlib

import numpy as np
from mmengine.logging import MMLogger

from mmebm.datasets.packed.arrow_index import ArrowIndex
from mmebm.datasets.packed.base import PackedImages, Rows
from mmebm.error_text import counted
from mmebm.registry import DATASETS


@DATASETS.register_module()
class HFImages(PackedImages):
    """The images of a HuggingFace data set on disk: Arrow, as ``save_to_disk`` leaves it, or Parquet, as on the hub.

    Read by pyarrow alone. Arrow files are mapped into memory, and an image is copied from there; of Parquet files a
    group of rows is read for each image that is not in the group before, so that images in random order cost as much
    reading as their groups. Broken images are skipped as by :class:`ImageFolder`; ``img_path`` is the path of the file,
    the row in it, and the name that the image had, if it is known.

    Args:
        data_root: The folder.
        split: Whose images to read, such as ``'train'``; not needed where there is only one.
        image_column: The column of images; not needed where there is only one.
        label_column: The column of labels; by default that of class labels, or ``label``.
        with_label: Whether to give the labels. Names of the classes are those in the files, if there are any.
        **kwargs: ``pipeline``, which begins with :class:`LoadImage`, ``lazy_init``, ``indices``, ``metainfo``,
            ``test_mode``, ``max_refetch`` and ``classes`` of mmpretrain's data sets.

    Raises:
        ImportError: pyarrow is not installed.
        FileNotFoundError: The folder, or a file of the data set, is missing.
        ValueError: It is not clear which files, split or columns are meant; a file is damaged, or holds no images but
            paths; a label is missing or is no class; or an option has no effect.
    """

    ROOT = 'the folder of Arrow or Parquet files of a HuggingFace data set'

    def __init__(
        self,
        data_root: str = '',
        split: str = '',
        image_column: str = '',
        label_column: str = '',
        with_label: bool = False,
        **kwargs,
    ) -> None:
        if label_column and not with_label:
            raise ValueError(f'HFImages: label_column={label_column!r} has no effect without with_label=True')
        self.split, self.image_column, self.label_column = split or '', image_column or '', label_column or ''
        super().__init__(data_root=data_root, with_label=with_label, **kwargs)

    @property
    def files_sha256(self) -> str:
        """A hash of the files' paths and their numbers of images; of a part of the images also of their rows."""
        self.full_init()
        rows, whole = self.data_list, self.data_list.index.files_sha256
        if len(rows) == len(rows.index):
            return whole
        return hashlib.sha256(whole.encode() + np.asarray(rows.rows, np.int64).tobytes()).hexdigest()

    def load_data_list(self) -> Rows:
        """Open the files."""
        index = ArrowIndex(self.data_root, self.split, self.image_column, self.with_label, self.label_column)
        if index.classes:
            self._name_classes(index.classes)
        MMLogger.get_current_instance().info(
            f'HFImages: {counted(len(index), "image")} in column {index.image_column!r} of '
            f'{counted(len(index.files), "file")} in {self.data_root!r}'
        )
        return Rows(index, self.with_label)
