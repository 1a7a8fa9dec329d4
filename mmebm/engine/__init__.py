"""Hooks of the training loop, and layer-wise learning rate decay."""

from mmebm.engine.hooks import (
    CleanBatchNormHook,
    EnergyLogHook,
    EpochSeedHook,
    FrozenFeatureHook,
    InputEnergyHook,
    MatmulPrecisionHook,
    NonFiniteLossHook,
    PatchWhiteningHook,
    ProgressHook,
    ResumeHook,
    ShardedOptimizerHook,
)
from mmebm.engine.layer_decay import BackboneLayerDecay

__all__ = [
    'BackboneLayerDecay',
    'CleanBatchNormHook',
    'EnergyLogHook',
    'EpochSeedHook',
    'FrozenFeatureHook',
    'InputEnergyHook',
    'MatmulPrecisionHook',
    'NonFiniteLossHook',
    'PatchWhiteningHook',
    'ProgressHook',
    'ResumeHook',
    'ShardedOptimizerHook',
]
