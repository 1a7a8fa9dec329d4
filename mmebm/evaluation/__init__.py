"""Metrics of restorations, energies, replaced tokens and frozen features."""

import mmebm.upstream.quiet_imports  # noqa: F401  (first)
from mmebm.evaluation.dump_predictions import DumpPredictions
from mmebm.evaluation.energy_metric import EnergyMetric
from mmebm.evaluation.frozen_accuracy import KNNAccuracy, LinearProbeAccuracy, knn_top1, linear_top1
from mmebm.evaluation.frozen_features import pooled_features
from mmebm.evaluation.label_free import AlphaReQ, LiDAR, RankMe, alpha_req, lidar, rankme
from mmebm.evaluation.ood_metric import OODEnergyMetric
from mmebm.evaluation.restoration_metric import RestorationMetric
from mmebm.evaluation.token_energy_metric import TokenEnergyMetric
from mmebm.evaluation.token_metric import TokenMetric

__all__ = [
    'AlphaReQ',
    'DumpPredictions',
    'EnergyMetric',
    'OODEnergyMetric',
    'KNNAccuracy',
    'LiDAR',
    'LinearProbeAccuracy',
    'RankMe',
    'RestorationMetric',
    'TokenEnergyMetric',
    'TokenMetric',
    'alpha_req',
    'knn_top1',
    'lidar',
    'linear_top1',
    'pooled_features',
    'rankme',
]
