"""What runs around the training loop."""

from mmebm.engine.hooks import EpochSeedHook, FrozenFeatureHook, NonFiniteLossHook, ProgressHook

__all__ = ['EpochSeedHook', 'FrozenFeatureHook', 'NonFiniteLossHook', 'ProgressHook']
