"""Images in tar shards, for data sets whose files are too many."""

from mmebm.datasets.packed.base import PackedImages, Rows
from mmebm.datasets.packed.shards import ShardIndex
from mmebm.registry import DATASETS


@DATASETS.register_module()
class TarShards(PackedImages):
    """The images of a folder that ``mmebm-pack`` has written to shards, in place of :class:`ImageFolder` of the folder.

    They have the order of ``ImageFolder(with_label=True)`` if all lie in subfolders, so the same index, seeds and
    draws, unless packing left out broken files; others are skipped alike. Where each lies is in files that are mapped
    into memory, once for all processes of a machine, and an image is read by a single call; copies for workers carry
    paths alone. ``img_path`` is its path in the folder that was packed, below ``data_root``.

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

    ROOT = 'the folder that mmebm-pack wrote'

    def load_data_list(self) -> Rows:
        """Open the index."""
        index = ShardIndex(self.data_root)
        if self.with_label:
            if index.classes is None:
                raise ValueError(
                    f'TarShards: with_label=True, but the images in {self.data_root!r} have no classes: some lay in '
                    'the packed folder itself. Move each to the folder of its class, and pack again'
                )
            self._name_classes(index.classes)
        return Rows(index, self.with_label)
