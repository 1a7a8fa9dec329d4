"""Data sets, and the loading of images."""

import mmebm.quiet_imports  # noqa: F401  (first)
from mmebm.datasets.image_folder import BrokenImageError, ImageFolder, LoadImage
from mmebm.datasets.labelled_folder import LabelledFolder
from mmebm.datasets.shapes import Instance, Picture, Shapes

__all__ = ['BrokenImageError', 'ImageFolder', 'Instance', 'LabelledFolder', 'LoadImage', 'Picture', 'Shapes']
