"""Images in tar shards, for data sets whose files are too many."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from mmcv.transforms import LoadImageFromFile
from mmpretrain.datasets import BaseDataset

from mmebm.datasets.load_image import LoadImage
from mmebm.datasets.shards import Rows, ShardIndex
from mmebm.datasets.skipping import SkipsBrokenImages
from mmebm.registry import DATASETS


class _FromMemory(BaseDataset):
    """Gives the pipeline the bytes of an image's file as ``img_bytes``."""

    def prepare_data(self, idx: int) -> Any:
        """Image ``idx`` after the pipeline."""
        return self.pipeline(dict(self.get_data_info(idx), img_bytes=self.data_list.content(idx)))


@DATASETS.register_module()
class TarShards(SkipsBrokenImages, _FromMemory):
    """The images of a folder that ``mmebm-pack`` has written to shards, in place of :class:`ImageFolder` of the folder.

    They have the same order, so the same index, seeds and draws; broken ones are skipped alike. Where each lies is in
    files that are mapped into memory, once for all processes of a machine, and an image is read by a single call;
    copies for workers carry paths alone. ``img_path`` is its path in the folder that was packed, below ``data_root``.

    Args:
        data_root: The folder of the shards.
        with_label: Use the first level of subfolders of the packed folder as the classes.
        pipeline: Transforms, which begin with :class:`LoadImage`.
        lazy_init: Whether to postpone opening the index to ``full_init``.
        **kwargs: ``indices``, ``metainfo``, ``test_mode``, ``max_refetch`` and ``classes`` of mmpretrain's data sets.

    Raises:
        ValueError: No folder is given, ``with_label`` is set but no classes were packed, the config names another
            number of classes, the pipeline reads files, or the index or a shard is damaged.
        FileNotFoundError: The index or a shard is missing.
    """

    def __init__(
        self,
        data_root: str = '',
        with_label: bool = False,
        pipeline: Sequence[dict | Callable] = (),
        lazy_init: bool = False,
        **kwargs,
    ) -> None:
        if not data_root:
            raise ValueError('TarShards: no folder given; set `data_root` to the folder that mmebm-pack wrote.')
        for name in ('ann_file', 'data_prefix', 'filter_cfg'):
            if kwargs.get(name):
                raise ValueError(f'TarShards: {name}={kwargs[name]!r} has no effect on shards; leave it out')
        kwargs = {name: value for name, value in kwargs.items() if name not in ('ann_file', 'data_prefix')}
        self.with_label = with_label
        super().__init__(
            ann_file='', data_root=data_root, pipeline=pipeline, lazy_init=True, serialize_data=False, **kwargs
        )
        for step in self.pipeline.transforms:
            if isinstance(step, LoadImageFromFile) and not isinstance(step, LoadImage):
                raise ValueError(
                    f'TarShards: {type(step).__name__} in the pipeline reads files, not members of shards; set its '
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
        """The hash of all paths that the index has; None of a part of the images."""
        index = self.data_list.index
        return index.about['files_sha256'] if len(self) == len(index) else None

    def load_data_list(self) -> Rows:
        """Open the index."""
        index = ShardIndex(self.data_root)
        if self.with_label:
            self._name_classes(index)
        return Rows(index, self.with_label)

    def filter_data(self) -> Rows:
        """All images."""
        return self.data_list

    def get_gt_labels(self) -> np.ndarray:
        """The class of each image, (len,)."""
        self.full_init()
        return self.data_list.labels()

    def get_cat_ids(self, idx: int) -> list[int]:
        """The class of image ``idx`` in a list."""
        return [int(self.get_data_info(idx)['gt_label'])]

    def extra_repr(self) -> list[str]:
        """The folder, for ``repr``."""
        return [f'Shards: \t{self.data_root}']

    def _get_unserialized_subset(self, indices: Sequence[int] | int) -> Rows:
        if isinstance(indices, int):
            return super()._get_unserialized_subset(indices)
        return self.data_list.take(indices)

    def _name_classes(self, index: ShardIndex) -> None:
        classes = index.classes
        if classes is None:
            raise ValueError(
                f'TarShards: with_label=True, but the images in {self.data_root!r} have no classes: some lay in the '
                'packed folder itself. Move each to the folder of its class, and pack again'
            )
        if self.CLASSES is not None and len(self.CLASSES) != len(classes):
            raise ValueError(
                f'TarShards: {self.data_root!r} has {len(classes)} classes, but the config names {len(self.CLASSES)}; '
                'correct `metainfo`, or leave it out'
            )
        self._metainfo['classes'] = self.CLASSES or tuple(classes)
