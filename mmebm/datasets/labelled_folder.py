"""ImageNet's layout, whatever the classes."""

from mmpretrain.datasets import ImageNet

from mmebm.datasets.image_folder import ImageFolder
from mmebm.registry import DATASETS


@DATASETS.register_module()
class LabelledFolder(ImageFolder, ImageNet):
    """Labelled images in ImageNet's layout: ``data_root`` holds ``train/`` and ``val/``, in each one folder per class.

    mmpretrain's ``ImageNet``, but for the classes, which are the folders found, and for the files, which are listed as
    by :class:`ImageFolder`. Images may lie at any depth of a class's folder. With a list ``meta/SPLIT.txt`` or an
    ``ann_file`` (a path and a label in each line), nothing is searched for.

    Args:
        with_label: Whether images have labels; not in the split ``'test'``.
        **kwargs: Options of :class:`ImageFolder`, and ``split``: ``'train'``, ``'val'`` or ``'test'``.

    Raises:
        ValueError: ``metainfo`` names another number of classes than there are folders.
        FileNotFoundError: The folder is missing or holds no image.
    """

    METAINFO = {'classes': None}

    def __init__(self, *, with_label: bool = True, **kwargs) -> None:
        super().__init__(with_label=with_label, **kwargs)
