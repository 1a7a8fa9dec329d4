"""Pictures of what a model restores and of how it learned."""

from .figures import plot_curves, plot_restorations

__all__ = ['plot_curves', 'plot_restorations']
