"""An embedded data set: pictures of coloured shapes, drawn from a seed, without files or downloads."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from mmpretrain.datasets import BaseDataset

from mmebm.datasets.embedded.drawing import Drawing, draw
from mmebm.option_check import check_whole_numbers
from mmebm.registry import DATASETS

SPLITS = ('train', 'val')
MIN_IMAGE_SIZE = 8


class Instance(NamedTuple):
    """The visible part of one object.

    ``bbox`` is (x1, y1, x2, y2) in pixels, with exclusive end; ``label`` the class; ``mask`` a bool array (H, W).
    """

    bbox: tuple[float, float, float, float]
    label: int
    mask: np.ndarray


class Picture(NamedTuple):
    """One picture with its annotations.

    ``img`` is uint8 (H, W, 3) in BGR order; ``gt_label`` the class of the main object; ``gt_seg_map`` uint8 (H, W)
    with 0 = background and 1 + class elsewhere; ``instances`` are ordered from back to front, the main object last.
    """

    img: np.ndarray
    gt_label: int
    gt_seg_map: np.ndarray
    instances: list[Instance]


@DATASETS.register_module()
class Shapes(BaseDataset):
    """Pictures of one large shape, up to two small ones partly behind it, on a background.

    Hue and texture are only correlated with the class, which the outline determines. The class of image ``i`` is ``i``
    modulo the number of classes: any ten consecutive images contain each class once. Image ``i`` depends on ``seed``,
    ``split``, ``i`` and ``image_size`` only.

    Args:
        size: Number of images.
        image_size: Height and width in pixels, at least 8.
        split: ``'train'`` or ``'val'``; they share no image.
        seed: At least 0. Another seed gives other pictures of the same distribution.
        pipeline: Transforms. They receive ``img``, ``img_shape``, ``ori_shape``, ``gt_label``, ``sample_idx`` and
            ``subset`` (the split).
        **kwargs: The options of :class:`mmpretrain.datasets.BaseDataset` that need no files, such as ``indices``,
            ``test_mode`` and ``lazy_init``.

    Raises:
        ValueError: ``size``, ``image_size``, ``split`` or ``seed`` is out of range, or no whole number.
    """

    # In alphabetical order, as a data set of folders numbers its classes.
    METAINFO = dict(
        classes=('arrow', 'crescent', 'cross', 'disc', 'flower', 'heart', 'ring', 'square', 'star', 'triangle')
    )

    def __init__(
        self,
        size: int = 10_000,
        image_size: int = 32,
        split: str = 'train',
        seed: int = 0,
        pipeline: Sequence[dict | Callable] = (),
        **kwargs,
    ) -> None:
        if split not in SPLITS:
            raise ValueError(f'Shapes: split={split!r} is unknown; choose from {list(SPLITS)}.')
        for name, value, least in (('size', size, 1), ('image_size', image_size, MIN_IMAGE_SIZE), ('seed', seed, 0)):
            check_whole_numbers('Shapes', least, **{name: value})
        self.size = size
        self.image_size = image_size
        self.split = split
        self.seed = seed
        super().__init__(ann_file='', pipeline=pipeline, **kwargs)

    def load_data_list(self) -> list[dict]:
        """List index and class of every image; ``indices`` may select from it."""
        return [dict(index=i, gt_label=i % len(self.METAINFO['classes'])) for i in range(self.size)]

    def get_data_info(self, idx: int) -> dict:
        """Draw image ``idx`` and return what the pipeline receives."""
        info = super().get_data_info(idx)
        img = self._draw(info).img
        return dict(info, img=img, img_shape=img.shape[:2], ori_shape=img.shape[:2], subset=self.split)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the class of image ``idx`` in a list, without drawing the image."""
        return [super().get_data_info(idx)['gt_label']]

    def get_gt_labels(self) -> np.ndarray:
        """Return the classes of all images, without drawing them."""
        return np.array([self.get_cat_ids(i)[0] for i in range(len(self))])

    def draw(self, idx: int) -> Picture:
        """Draw image ``idx`` with its segmentation map and its objects."""
        picture = self._draw(super().get_data_info(idx))
        instances = [_instance(picture.owners, i, label) for i, label in enumerate(picture.labels, start=1)]
        labels = np.array([0, *(label + 1 for label in picture.labels)], np.uint8)
        visible = [instance for instance in instances if instance is not None]
        return Picture(picture.img, picture.labels[-1], labels[picture.owners], visible)

    def extra_repr(self) -> list[str]:
        """Return the options of this data set, for ``repr``."""
        return [f'Image size: \t{self.image_size}', f'Split: \t{self.split}', f'Seed: \t{self.seed}']

    def _draw(self, info: dict) -> Drawing:
        rng = np.random.default_rng((self.seed, SPLITS.index(self.split), info['index']))
        return draw(info['gt_label'], self.image_size, rng)


def _instance(owners: np.ndarray, number: int, label: int) -> Instance | None:
    mask = owners == number
    ys, xs = mask.any(1).nonzero()[0], mask.any(0).nonzero()[0]
    if not len(ys):  # hidden behind the others
        return None
    return Instance((float(xs[0]), float(ys[0]), float(xs[-1] + 1), float(ys[-1] + 1)), label, mask)
