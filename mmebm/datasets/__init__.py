"""Data sets, and the loading of images."""

import mmebm.upstream.quiet_imports  # noqa: F401  (first)
from mmebm.datasets.concat import ConcatDataset
from mmebm.datasets.embedded.shapes import Instance, Picture, Shapes
from mmebm.datasets.image_folder import ImageFolder
from mmebm.datasets.labelled_folder import LabelledFolder
from mmebm.datasets.load_image import BrokenImageError, LoadImage
from mmebm.datasets.packed.hf_images import HFImages
from mmebm.datasets.packed.tar_shards import TarShards

__all__ = [
    'BrokenImageError',
    'ConcatDataset',
    'HFImages',
    'ImageFolder',
    'Instance',
    'LabelledFolder',
    'LoadImage',
    'Picture',
    'Shapes',
    'TarShards',
]
