"""Hooks of the training loop, and layer-wise learning rate decay."""

from mmebm.engine.hooks import (
    BatchOfOneHook,
    CleanBatchNormHook,
    EnergyLogHook,
    EpochSeedHook,
    FrozenFeatureHook,
    InputEnergyHook,
    MatmulPrecisionHook,
    NonFiniteLossHook,
    PatchWhiteningHook,
    ProgressHook,
    ShardedOptimizerHook,
)
from mmebm.engine.layer_decay import BackboneLayerDecay

__all__ = [
    'BackboneLayerDecay',
    'BatchOfOneHook',
    'CleanBatchNormHook',
    'EnergyLogHook',
    'EpochSeedHook',
    'FrozenFeatureHook',
    'InputEnergyHook',
    'MatmulPrecisionHook',
    'NonFiniteLossHook',
    'PatchWhiteningHook',
    'ProgressHook',
    'ShardedOptimizerHook',
]
