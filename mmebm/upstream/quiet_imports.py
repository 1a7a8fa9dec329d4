"""Imports other packages without what they print of parts that are missing and not needed here.

As a module, it does so for mmpretrain: import it before anything that imports mmpretrain's data sets or models.
"""

import contextlib
import importlib
import io
import warnings


def import_quietly(*modules: str) -> None:
    """Import modules without their output and warnings. One that cannot be imported is left to who needs it."""
    for module in modules:
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(), contextlib.suppress(ImportError):
            warnings.simplefilter('ignore')
            importlib.import_module(module)


import_quietly('mmpretrain.datasets', 'mmpretrain.models')
