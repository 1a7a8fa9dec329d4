"""The algorithms, their heads and the loss; backbones from HuggingFace, those that dense prediction needs; and
what other pretraining methods need to be compared on equal terms.
"""

from .ebm import EBMAlgorithm
from .energy_classifier import EnergyClassifier
from .energy_head import EnergyHead
from .huggingface_backbone import HuggingFaceBackbone
from .image_tokenizer import ImageTokenizer
from .patch_ebm import PatchEBM
from .patch_energy import PatchEnergyHead
from .patch_subset_vit import PatchSubsetViT
from .peers import BEiTPlainViT, HOGOfPatches, RepeatedMAE, SimMIMViT, SinCosMaskFeatViT
from .residual_energy import ResidualEnergyHead
from .restoration_loss import RestorationLoss
from .simple_feature_pyramid import SimpleFeaturePyramid
from .sincos_vit import SinCosViT
from .stages import ConvNeXtStages, StageNorms, SwinStages
from .windowed_vit import WindowedViT

__all__ = [
    'BEiTPlainViT',
    'ConvNeXtStages',
    'EBMAlgorithm',
    'EnergyClassifier',
    'EnergyHead',
    'HOGOfPatches',
    'HuggingFaceBackbone',
    'ImageTokenizer',
    'PatchEBM',
    'PatchEnergyHead',
    'PatchSubsetViT',
    'RepeatedMAE',
    'ResidualEnergyHead',
    'RestorationLoss',
    'SimMIMViT',
    'SimpleFeaturePyramid',
    'SinCosMaskFeatViT',
    'SinCosViT',
    'StageNorms',
    'SwinStages',
    'WindowedViT',
]
