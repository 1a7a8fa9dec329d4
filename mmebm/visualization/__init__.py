"""Pictures of what a model restores and of how it learned."""

from mmebm.visualization.figures import plot_curves, plot_restorations

__all__ = ['plot_curves', 'plot_restorations']
