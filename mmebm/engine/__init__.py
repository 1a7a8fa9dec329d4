"""What runs around the training loop."""

from mmebm.engine.hooks import (
    EnergyLogHook,
    EpochSeedHook,
    FrozenFeatureHook,
    MatmulPrecisionHook,
    NonFiniteLossHook,
    ProgressHook,
    ShardedOptimizerHook,
)

__all__ = [
    'EnergyLogHook',
    'EpochSeedHook',
    'FrozenFeatureHook',
    'MatmulPrecisionHook',
    'NonFiniteLossHook',
    'ProgressHook',
    'ShardedOptimizerHook',
]
