import importlib
import sys

import pytest

from mmebm.upstream.after_import import after_import


@pytest.fixture
def module(tmp_path, monkeypatch):
    """A module that has not been imported."""
    (tmp_path / 'a_module.py').write_text('value = 1\n')
    monkeypatch.syspath_prepend(tmp_path)
    yield 'a_module'
    sys.modules.pop('a_module', None)


def test_acts_once_and_after_the_modules_own_code(module):
    seen, finders = [], len(sys.meta_path)
    after_import(module, lambda found: seen.append(found.value))
    assert seen == []
    importlib.import_module(module)
    importlib.import_module(module)
    assert seen == [1]
    assert len(sys.meta_path) == finders


def test_acts_at_once_on_what_has_been_imported(module):
    importlib.import_module(module).value = 2
    seen = []
    after_import(module, lambda found: seen.append(found.value))
    assert seen == [2]


def test_a_module_that_does_not_exist_stays_missing():
    after_import('no_such_module', lambda found: None)
    with pytest.raises(ModuleNotFoundError, match="No module named 'no_such_module'"):
        importlib.import_module('no_such_module')
