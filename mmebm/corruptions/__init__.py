"""Corruptions: what is restored, as transforms."""

from .pair import CorruptedPair
from .transforms import Corruption, Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle

__all__ = ['CorruptedPair', 'Corruption', 'Downsample', 'GaussianNoise', 'Grayscale', 'PatchMask', 'PatchShuffle']
