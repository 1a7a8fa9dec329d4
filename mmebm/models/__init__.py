"""The algorithm, its head and its loss."""

from .ebm import EBMAlgorithm
from .energy_head import EnergyHead
from .restoration_loss import RestorationLoss

__all__ = ['EBMAlgorithm', 'EnergyHead', 'RestorationLoss']
