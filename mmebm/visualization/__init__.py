"""Figures of restorations and of training curves."""

from mmebm.visualization.figures import plot_curves, plot_restorations

__all__ = ['plot_curves', 'plot_restorations']
