"""Configs that are data: what a JSON or YAML file may say, so that to read it and to build from it runs no code."""

import importlib
import inspect
import os
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmebm.config_files import config_folder
from mmebm.config_tree import nested
from mmebm.error_text import first_few

ENDINGS = ('.json', '.yaml', '.yml')

# Packages whose registered types, modules and configs a config may name.
SCOPES = ('mmebm', 'mmengine', 'mmcv', 'mmpretrain', 'mmseg', 'mmdet')

# Keys whose value is looked up in a registry, which takes any object by its module too.
TYPES = ('type', 'constructor', 'runner_type', 'optimizer_type')
NAME = re.compile(r'[\w-]+(/\w+)?')

# Types whose options are evaluated as Python.
EVALUATING = ('RFSearchHook', 'CameraMotionCompensation')


def is_data(path: str | Path) -> bool:
    """Whether a config file is data by its ending, and no program."""
    return str(path).lower().endswith(ENDINGS)


def check_base(base: str, path: str) -> None:
    """Check what a JSON or YAML config inherits from.

    Args:
        base: Path of the inherited file.
        path: Path of the config, for the error.

    Raises:
        ValueError: It is a Python file, and none of an installed package's configs.
    """
    inherited = Path(os.path.normpath(base))
    of_package = '.mim' in inherited.parts and inherited.parts[inherited.parts.index('.mim') - 1] in SCOPES
    if not (is_data(inherited) or of_package or inherited.is_relative_to(config_folder())):
        raise ValueError(
            f'{path} is refused: it inherits from {inherited}, a Python file, and a JSON or YAML config must not run '
            "code. Inherit from a JSON or YAML file or from a shipped config ('mmebm::NAME'); or, if you trust its "
            'author, write the config as a .py file'
        )


def check_keys(content: Any) -> None:
    """Check that a file's content is keys with values; raises ValueError if it is not."""
    if not isinstance(content, dict):
        found = 'nothing' if content is None else f'a {type(content).__name__}'
        raise ValueError(f'it holds {found}, not keys with values')


def check_data(config: dict, path: str) -> None:
    """Check that building what a JSON or YAML config says calls nothing but registered types.

    Args:
        config: The config, with what it inherits.
        path: Its file, for the error.

    Raises:
        ValueError: It names something that would run code. The message lists the first few keys.
    """
    if faults := [*_faults(config)]:
        raise ValueError(
            f'{path} is refused, since a JSON or YAML config must not run code: {first_few(faults)}. Name types as '
            f'they are registered, as NAME or SCOPE.NAME with a SCOPE of {", ".join(SCOPES)}; if you trust its author, '
            'write the config as a .py file'
        )


def running_options(config: dict) -> Iterator[str]:
    """Options by which registered types run code, by their place, with what is wrong."""
    for place, value in nested(config):
        key = place.rpartition('.')[2]
        if key == 'trust_remote_code' and value:
            yield f'{place}={value!r} downloads and runs code'
        elif key == 'dtype' and isinstance(value, str) and not re.fullmatch(r'(torch\.)?\w+', value):
            yield f'{place}={value!r} would be evaluated'


def _faults(config: dict) -> Iterator[str]:
    yield from running_options(config)
    for place, value in nested(config):
        key = place.rpartition('.')[2]
        if key in TYPES and isinstance(value, str) and (fault := _fault_of_type(value)):
            yield f'{place}={value!r} {fault}'
        elif key in ('default_scope', '_scope_') and isinstance(value, str) and value not in SCOPES:
            yield f'{place}={value!r} is a package that would be imported'
        elif key == 'custom_imports' and (names := [*_foreign_imports(value)]):
            yield f'{place} imports {first_few(names)}'
        elif key in ('ann_file', 'proposal_file') and str(value).endswith(('.pkl', '.pickle')):
            yield f'{place}={value!r} would be unpickled (use JSON)'


def _fault_of_type(name: str) -> str:
    """What is wrong with a type's name; empty if nothing is."""
    scope, dot, rest = name.rpartition('.')
    if not NAME.fullmatch(rest):
        return 'is no name of a type'
    if rest in EVALUATING:
        return 'evaluates its options as code'
    if not dot:
        return 'is a Python module' if rest.isidentifier() and _is_module(rest) else ''
    if scope not in SCOPES:
        return 'names a Python module'
    value = getattr(importlib.import_module(scope), rest, None) if find_spec(scope) else None
    return '' if value is None or inspect.isclass(value) else f'is no type, but a {type(value).__name__}'


def _is_module(name: str) -> bool:
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _foreign_imports(value: Any) -> Iterator[str]:
    names = value.get('imports') if isinstance(value, dict) else value
    for name in [names] if isinstance(names, str) else names or []:
        if str(name).partition('.')[0] not in SCOPES:
            yield str(name)
