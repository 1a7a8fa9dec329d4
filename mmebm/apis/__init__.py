"""Trained models from Python: restored images, energies and features of files, folders, arrays and tensors."""

from mmebm.apis.restorer import Restorer
from mmebm.apis.results import POLARITY, ImageEnergy, ImageFeatures, RestoredImage

__all__ = ['POLARITY', 'ImageEnergy', 'ImageFeatures', 'RestoredImage', 'Restorer']
