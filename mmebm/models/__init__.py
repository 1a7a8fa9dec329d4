"""The algorithm, its head and its loss, and backbones from HuggingFace."""

from .ebm import EBMAlgorithm
from .energy_head import EnergyHead
from .huggingface_backbone import HuggingFaceBackbone
from .restoration_loss import RestorationLoss

__all__ = ['EBMAlgorithm', 'EnergyHead', 'HuggingFaceBackbone', 'RestorationLoss']
