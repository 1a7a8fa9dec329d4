"""Corruptions as transforms, and training pairs of corrupted and clean images."""

from mmebm.corruptions.base import Corruption
from mmebm.corruptions.pair import CorruptedPair
from mmebm.corruptions.transforms import Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle

__all__ = ['CorruptedPair', 'Corruption', 'Downsample', 'GaussianNoise', 'Grayscale', 'PatchMask', 'PatchShuffle']
