"""Metrics of restoration, of energy, and of frozen features."""

from mmebm.evaluation.energy import EnergyMetric
from mmebm.evaluation.foreign_energy import ForeignEnergyMetric
from mmebm.evaluation.frozen_features import KNNAccuracy, LinearProbeAccuracy, knn_top1, linear_top1, pooled_features
from mmebm.evaluation.restoration import RestorationMetric

__all__ = [
    'EnergyMetric',
    'ForeignEnergyMetric',
    'KNNAccuracy',
    'LinearProbeAccuracy',
    'RestorationMetric',
    'knn_top1',
    'linear_top1',
    'pooled_features',
]
