"""Corruptions: what is restored, as transforms."""

from .transforms import CorruptedPair, Corruption, Downsample, GaussianNoise, Grayscale, PatchMask, PatchShuffle

__all__ = ['CorruptedPair', 'Corruption', 'Downsample', 'GaussianNoise', 'Grayscale', 'PatchMask', 'PatchShuffle']
