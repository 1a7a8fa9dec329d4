"""The registries of scope ``mmebm``.

Each is a child of mmengine's root registry, not of mmpretrain's, so that ``type='mmebm.X'`` builds under the default
scopes of mmpretrain, mmseg and mmdet. ``locations`` are imported at the first look-up; keep this module
light to import, since mmengine hides an ImportError raised here behind "not in the registry".
"""

from mmengine import registry as root
from mmengine.registry import Registry

MODELS = Registry('model', parent=root.MODELS, locations=['mmebm.models'], scope='mmebm')
WEIGHT_INITIALIZERS = Registry(
    'weight initializer', parent=root.WEIGHT_INITIALIZERS, locations=['mmebm.models'], scope='mmebm'
)
TRANSFORMS = Registry(
    'transform', parent=root.TRANSFORMS, locations=['mmebm.corruptions', 'mmebm.datasets'], scope='mmebm'
)
DATASETS = Registry('dataset', parent=root.DATASETS, locations=['mmebm.datasets'], scope='mmebm')
METRICS = Registry('metric', parent=root.METRICS, locations=['mmebm.evaluation'], scope='mmebm')
HOOKS = Registry('hook', parent=root.HOOKS, locations=['mmebm.engine'], scope='mmebm')
OPTIM_WRAPPER_CONSTRUCTORS = Registry(
    'optimizer wrapper constructor',
    parent=root.OPTIM_WRAPPER_CONSTRUCTORS,
    locations=['mmebm.engine'],
    scope='mmebm',
)
LOG_PROCESSORS = Registry('log processor', parent=root.LOG_PROCESSORS, locations=['mmebm.engine'], scope='mmebm')
