"""Takes backbones from mmebm's checkpoints to other libraries, with proof, and brings others' weights here."""

from mmebm.interchange.export import TARGETS, Export, export
from mmebm.interchange.importing import FORMATS, import_weights
from mmebm.interchange.specs import UnsupportedError

__all__ = ['FORMATS', 'TARGETS', 'Export', 'UnsupportedError', 'export', 'import_weights']
