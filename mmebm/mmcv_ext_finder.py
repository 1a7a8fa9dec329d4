"""Lets ``import mmcv._ext`` find `mmebm.mmcv_ext` where mmcv has no compiled ops of its own. Imports nothing heavy."""

import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path

NAME = 'mmcv._ext'


class MmcvExtFinder(MetaPathFinder):
    """Answers for ``mmcv._ext`` alone, and is asked last: ops that are there are found before, working or not."""

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """The stand-in under mmcv's name; None for any other module."""
        return spec_from_file_location(NAME, Path(__file__).with_name('mmcv_ext.py')) if fullname == NAME else None


def install() -> None:
    """Appends the finder to ``sys.meta_path``, once, however often mmebm is imported anew."""
    if not any(type(finder).__qualname__ == MmcvExtFinder.__qualname__ for finder in sys.meta_path):
        sys.meta_path.append(MmcvExtFinder())
