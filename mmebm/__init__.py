"""Self-supervised pretraining by energy and restoration, on MMPretrain."""

__version__ = '0.1.0'
