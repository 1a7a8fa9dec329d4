"""Lets mmpretrain's ``browse_dataset`` run with today's matplotlib."""

import inspect
from types import ModuleType

from mmebm.after_import import after_import


def install() -> None:
    """Mends the function that the script takes from matplotlib, whether it has been imported or not."""
    after_import('matplotlib._tight_bbox', _mend)


def _mend(module: ModuleType) -> None:
    # The script passes no renderer, which matplotlib wants, but reads for axes with a locator alone; the script's have
    # none. In place, since the script holds the function before a config imports mmebm.
    parameters = list(inspect.signature(module.adjust_bbox).parameters.values())
    if [parameter.name for parameter in parameters] == ['fig', 'bbox_inches', 'renderer', 'fixed_dpi']:
        module.adjust_bbox.__defaults__ = (None, None)
