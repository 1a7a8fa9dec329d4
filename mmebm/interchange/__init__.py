"""Takes backbones from mmebm's checkpoints to other libraries, with proof, and brings others' weights here."""

from .export import TARGETS, Export, export
from .importing import FORMATS, import_weights
from .traits import UnsupportedError

__all__ = ['FORMATS', 'TARGETS', 'Export', 'UnsupportedError', 'export', 'import_weights']
