"""Packages that the tests can do without, though not in CI."""

import importlib
import os
from types import ModuleType

import pytest


def import_or_skip(name: str) -> ModuleType:
    """The module; where it is not installed, the tests are skipped, but fail if the environment says ``CI``."""
    return importlib.import_module(name) if os.environ.get('CI') else pytest.importorskip(name)
