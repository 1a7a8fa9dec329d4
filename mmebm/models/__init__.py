"""The algorithm, its head and its loss; backbones from HuggingFace, and those that dense prediction needs."""

from .ebm import EBMAlgorithm
from .energy_classifier import EnergyClassifier
from .energy_head import EnergyHead
from .huggingface_backbone import HuggingFaceBackbone
from .restoration_loss import RestorationLoss
from .stages import ConvNeXtStages, StageNorms, SwinStages

__all__ = [
    'ConvNeXtStages',
    'EBMAlgorithm',
    'EnergyClassifier',
    'EnergyHead',
    'HuggingFaceBackbone',
    'RestorationLoss',
    'StageNorms',
    'SwinStages',
]
