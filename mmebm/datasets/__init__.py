"""Data sets, and the loading of images."""

import mmebm.quiet_imports  # noqa: F401  (first)
from mmebm.datasets.image_folder import BrokenImageError, ImageFolder, LoadImage
from mmebm.datasets.shapes import Instance, Picture, Shapes

__all__ = ['BrokenImageError', 'ImageFolder', 'Instance', 'LoadImage', 'Picture', 'Shapes']
