"""The Python code of README and documentation: names that are imported and registered, configs that are read."""

import ast
import importlib

import mmengine.registry
import mmpretrain.registry
import pytest
from mmengine.config import Config
from mmengine.registry import Registry
from page_commands import PAGES, ROOT, code_blocks

from mmebm.upstream.quiet_imports import import_quietly

NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]
BLOCKS = [(page, index) for page in NAMES for index in range(len(code_blocks(page)))]

# Of the page's own, which readers write.
THEIRS = {'MyBackbone', 'mmebm.Scratches'}
THEIR_MODULES = {'my_backbone', 'scratches'}


def registered(name):
    known = [*vars(mmpretrain.registry).values(), *vars(mmengine.registry).values()]
    registries = [one for one in known if isinstance(one, Registry)]
    return any(one.get(name) is not None for one in registries)


def types_in(tree):
    """The values of ``type`` in calls of ``dict``."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and getattr(node.func, 'id', '') == 'dict']
    keywords = [keyword for call in calls for keyword in call.keywords if keyword.arg == 'type']
    return {keyword.value.value for keyword in keywords if isinstance(keyword.value, ast.Constant)}


@pytest.mark.parametrize(('page', 'index'), BLOCKS)
def test_names_are_known(page, index):
    tree = ast.parse(code_blocks(page)[index])
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            assert all(importlib.import_module(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
    kinds = types_in(tree) - THEIRS
    packages = {kind.partition('.')[0] for kind in kinds if kind.startswith(('mmseg.', 'mmdet.'))}
    import_quietly(*(f'{package}.models' for package in packages))
    assert not [kind for kind in kinds if not registered(kind)]


CONFIGS = [(page, index) for page, index in BLOCKS if '_base_' in code_blocks(page)[index]]


@pytest.mark.parametrize(('page', 'index'), CONFIGS)
def test_configs_are_read(page, index, tmp_path):
    text = code_blocks(page)[index].replace("'./", f"'{ROOT}/configs/")
    if '_base_ =' not in text:
        text = f"_base_ = 'mmebm::ebm_vit-t_folder.py'\n{text}"
    assert not set(Config.fromfile(write(tmp_path, text)).get('custom_imports', {}).get('imports', [])) - THEIR_MODULES


def write(folder, text):
    """A file of the config, whose own modules are not there."""
    (folder / 'mine.py').write_text(text.replace('custom_imports =', 'their_imports ='))
    return folder / 'mine.py'


def test_code_is_found():
    assert len(BLOCKS) > 20 and len(CONFIGS) > 8
