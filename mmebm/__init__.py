"""Self-supervised pretraining by energy and restoration, on MMPretrain."""

from mmengine.config.utils import MODULE2PACKAGE

from mmebm import mmcv_ext_finder, upstream
from mmebm.environment import check_environment

__version__ = '0.1.0'

check_environment()

# Before anything imports mmcv.ops, so that mmdet's models need no compiled ops.
mmcv_ext_finder.install()

# For configs that inherit from `mmseg::...`: mmengine maps `mmseg` to the distribution `mmsegmentation`, which is now
# called `onedl-mmsegmentation`. It does not know `mmebm`.
MODULE2PACKAGE['mmseg'] = 'mmseg'
MODULE2PACKAGE['mmebm'] = 'mmebm'

upstream.install()
