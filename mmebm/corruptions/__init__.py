"""Corruptions as transforms, and training pairs of corrupted and clean images."""

from mmebm.corruptions.base import Corruption
from mmebm.corruptions.copy import CorruptedCopy
from mmebm.corruptions.pair import CorruptedPair
from mmebm.corruptions.transforms import Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle

__all__ = [
    'CorruptedCopy',
    'CorruptedPair',
    'Corruption',
    'Downsample',
    'GaussianNoise',
    'Grayscale',
    'PatchMask',
    'PatchShuffle',
]
