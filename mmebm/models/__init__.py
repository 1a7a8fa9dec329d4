"""The algorithms, their heads and the loss; backbones of HuggingFace and for dense prediction; and parts of other
pretraining methods, for comparisons on equal terms.
"""

import mmebm.upstream.quiet_imports  # noqa: F401  (first)
from mmebm.models.backbones.huggingface_backbone import HuggingFaceBackbone
from mmebm.models.backbones.patch_subset_vit import PatchSubsetViT
from mmebm.models.backbones.sincos_vit import SinCosViT
from mmebm.models.backbones.stages import ConvNeXtStages, StageNorms, SwinStages
from mmebm.models.backbones.tied_attention import TiedAttention
from mmebm.models.backbones.windowed_vit import WindowedViT
from mmebm.models.classifiers.energy_classifier import EnergyClassifier
from mmebm.models.data_preprocessor import SelfSupDataPreprocessor
from mmebm.models.heads.energy_head import EnergyHead
from mmebm.models.heads.patch_energy_head import PatchEnergyHead
from mmebm.models.heads.residual_energy_head import ResidualEnergyHead
from mmebm.models.heads.respix_head import ResPixHead
from mmebm.models.heads.revdet_head import RevDetHead
from mmebm.models.losses.restoration_loss import RestorationLoss
from mmebm.models.necks.simple_feature_pyramid import SimpleFeaturePyramid
from mmebm.models.peers import (
    BEiTPlainViT,
    HOGOfPatches,
    PlacesMAE,
    PlacesMAEHead,
    PlacesMAEViT,
    RepeatedMAE,
    SimMIMViT,
    SinCosMaskFeatViT,
)
from mmebm.models.selfsup.cim import CIM
from mmebm.models.selfsup.ebm import EBMAlgorithm
from mmebm.models.selfsup.generator_corruption import GeneratorCorruption
from mmebm.models.selfsup.patch_ebm import PatchEBM
from mmebm.models.tokenizers.dalle import DALLE
from mmebm.models.tokenizers.frozen import FrozenTokenizer
from mmebm.models.tokenizers.generator import TokenGenerator
from mmebm.models.tokenizers.vqvae import VQVAE

__all__ = [
    'BEiTPlainViT',
    'CIM',
    'ConvNeXtStages',
    'DALLE',
    'EBMAlgorithm',
    'EnergyClassifier',
    'EnergyHead',
    'FrozenTokenizer',
    'GeneratorCorruption',
    'HOGOfPatches',
    'HuggingFaceBackbone',
    'VQVAE',
    'PatchEBM',
    'PatchEnergyHead',
    'PatchSubsetViT',
    'PlacesMAE',
    'PlacesMAEHead',
    'PlacesMAEViT',
    'RepeatedMAE',
    'ResPixHead',
    'ResidualEnergyHead',
    'RestorationLoss',
    'RevDetHead',
    'SelfSupDataPreprocessor',
    'SimMIMViT',
    'SimpleFeaturePyramid',
    'SinCosMaskFeatViT',
    'SinCosViT',
    'StageNorms',
    'SwinStages',
    'TiedAttention',
    'TokenGenerator',
    'WindowedViT',
]
