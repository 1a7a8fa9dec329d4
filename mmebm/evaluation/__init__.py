"""Metrics of restorations, energies, replaced tokens and frozen features."""

import mmebm.upstream.quiet_imports  # noqa: F401  (first)
from mmebm.evaluation.dump_predictions import DumpPredictions
from mmebm.evaluation.energy_metric import EnergyMetric
from mmebm.evaluation.frozen_features import KNNAccuracy, LinearProbeAccuracy, knn_top1, linear_top1, pooled_features
from mmebm.evaluation.ood_metric import OODEnergyMetric
from mmebm.evaluation.restoration_metric import RestorationMetric
from mmebm.evaluation.token_energy_metric import TokenEnergyMetric
from mmebm.evaluation.token_metric import TokenMetric

__all__ = [
    'DumpPredictions',
    'EnergyMetric',
    'OODEnergyMetric',
    'KNNAccuracy',
    'LinearProbeAccuracy',
    'RestorationMetric',
    'TokenEnergyMetric',
    'TokenMetric',
    'knn_top1',
    'linear_top1',
    'pooled_features',
]
