"""Hooks of the training loop, the layout of its log, layer-wise learning rate decay, and clipping by parts."""

from mmebm.engine.atomic_backend import AtomicBackend
from mmebm.engine.clipping import ClipGeneratorApart
from mmebm.engine.corruption_log_processor import CorruptionLogProcessor
from mmebm.engine.hooks import (
    AtomicCheckpointHook,
    BatchOfOneHook,
    BrokenImagesHook,
    CleanBatchNormHook,
    CPUTimeHook,
    EnergyLogHook,
    EpochSeedHook,
    FrozenFeatureHook,
    InputEnergyHook,
    MatmulPrecisionHook,
    NonFiniteLossHook,
    NotLearningHook,
    PatchWhiteningHook,
    PreemptionHook,
    ProgressHook,
    ProvenanceHook,
    RestorationProgressHook,
    RestorationVisualizationHook,
    ResumeHook,
    ShardedOptimizerHook,
)
from mmebm.engine.layer_decay import BackboneLayerDecay

__all__ = [
    'AtomicBackend',
    'AtomicCheckpointHook',
    'BackboneLayerDecay',
    'BatchOfOneHook',
    'BrokenImagesHook',
    'CPUTimeHook',
    'CleanBatchNormHook',
    'ClipGeneratorApart',
    'CorruptionLogProcessor',
    'EnergyLogHook',
    'EpochSeedHook',
    'FrozenFeatureHook',
    'InputEnergyHook',
    'MatmulPrecisionHook',
    'NonFiniteLossHook',
    'NotLearningHook',
    'PatchWhiteningHook',
    'PreemptionHook',
    'ProgressHook',
    'RestorationProgressHook',
    'ProvenanceHook',
    'RestorationVisualizationHook',
    'ResumeHook',
    'ShardedOptimizerHook',
]
