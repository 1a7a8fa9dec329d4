"""The algorithm, its head and its loss; backbones from HuggingFace, and those that dense prediction needs."""

from .ebm import EBMAlgorithm
from .energy_classifier import EnergyClassifier
from .energy_head import EnergyHead
from .huggingface_backbone import HuggingFaceBackbone
from .restoration_loss import RestorationLoss
from .simple_feature_pyramid import SimpleFeaturePyramid
from .stages import ConvNeXtStages, StageNorms, SwinStages
from .windowed_vit import WindowedViT

__all__ = [
    'ConvNeXtStages',
    'EBMAlgorithm',
    'EnergyClassifier',
    'EnergyHead',
    'HuggingFaceBackbone',
    'RestorationLoss',
    'SimpleFeaturePyramid',
    'StageNorms',
    'SwinStages',
    'WindowedViT',
]
