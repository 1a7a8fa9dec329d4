"""Data sets and the reading of images."""

from mmebm.datasets.image_folder import BrokenImageError, ImageFolder, LoadImage

__all__ = ['BrokenImageError', 'ImageFolder', 'LoadImage']
