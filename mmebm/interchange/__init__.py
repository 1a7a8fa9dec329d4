"""Exports backbones of mmebm's checkpoints to other libraries, verified, and imports other libraries' weights."""

from mmebm.interchange.export import TARGETS, Export, export
from mmebm.interchange.importing import FORMATS, import_weights
from mmebm.interchange.specs import UnsupportedError

__all__ = ['FORMATS', 'TARGETS', 'Export', 'UnsupportedError', 'export', 'import_weights']
