"""Hooks of the training loop."""

from mmebm.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook
from mmebm.engine.hooks.batch_of_one_hook import BatchOfOneHook
from mmebm.engine.hooks.broken_images_hook import BrokenImagesHook
from mmebm.engine.hooks.clean_batch_norm_hook import CleanBatchNormHook
from mmebm.engine.hooks.cpu_time_hook import CPUTimeHook
from mmebm.engine.hooks.energy_log_hook import EnergyLogHook
from mmebm.engine.hooks.epoch_seed_hook import EpochSeedHook
from mmebm.engine.hooks.frozen_feature_hook import FrozenFeatureHook
from mmebm.engine.hooks.input_energy_hook import InputEnergyHook
from mmebm.engine.hooks.matmul_precision_hook import MatmulPrecisionHook
from mmebm.engine.hooks.non_finite_loss_hook import NonFiniteLossHook
from mmebm.engine.hooks.not_learning_hook import NotLearningHook
from mmebm.engine.hooks.patch_whitening_hook import PatchWhiteningHook
from mmebm.engine.hooks.preemption_hook import PreemptionHook
from mmebm.engine.hooks.progress_hook import ProgressHook
from mmebm.engine.hooks.provenance_hook import ProvenanceHook
from mmebm.engine.hooks.restoration_progress_hook import RestorationProgressHook
from mmebm.engine.hooks.restoration_visualization_hook import RestorationVisualizationHook
from mmebm.engine.hooks.resume_hook import ResumeHook
from mmebm.engine.hooks.sharded_optimizer_hook import ShardedOptimizerHook

__all__ = [
    'AtomicCheckpointHook',
    'BatchOfOneHook',
    'BrokenImagesHook',
    'CPUTimeHook',
    'CleanBatchNormHook',
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
