"""Configs side by side: what a run's differs from its base in, and what runs differ in among themselves."""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmebm.config_files import config_folder
from mmebm.config_tree import differences
from mmebm.launch.options import RUNNER_KEYS
from mmebm.model_building import type_name
from mmebm.report.run import Run

# Other keys of a config file are variables, whose values stand where they are used.
KEYS = RUNNER_KEYS - {'work_dir', 'experiment_name', 'launcher'}


def base_of(run: Run) -> tuple[str, dict[str, tuple[Any, Any]]] | None:
    """The shipped config that a run's differs least from, and the values in which it does, base's and run's.

    That of the same name, if there is one; inheritance is not kept in the config that mmengine writes.
    """
    if run.cfg is None:
        return None
    new = run.cfg.to_dict()
    bases = [path for path in _shipped() if (run.folder / path.name).is_file()]  # mmengine copies the config there
    if not bases:
        kind = type_name(new.get('model') or {})
        bases = [path for path in sorted(config_folder().glob('*.py')) if _model_type(path) == kind]
    found = [(path, _differences(_read(path), new)) for path in bases]
    if not found:
        return None
    path, changed = min(found, key=lambda item: len(item[1]))
    return path.relative_to(config_folder()).as_posix(), changed


def settings_that_differ(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """By dotted path, the values of each run, where they are not all the same."""
    configs = [run.cfg.to_dict() if run.cfg else {} for run in runs]
    paths = dict.fromkeys(path for other in configs[1:] for path in _differences(configs[0], other))
    return [(path, [_value(config, path) for config in configs]) for path in paths]


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    old, new = ({key: value for key, value in config.items() if key in KEYS} for config in (old, new))
    return differences(old, new)


def _value(config: Any, path: str) -> Any:
    for key in path.split('.'):
        if isinstance(config, (list, tuple)) and key.isdigit() and int(key) < len(config):
            config = config[int(key)]
        elif isinstance(config, Mapping) and key in config:
            config = config[key]
        else:
            return None
    return config


@cache
def _shipped() -> list[Path]:
    return sorted(path for path in config_folder().rglob('*.py') if '_base_' not in path.parts)


def _model_type(path: Path) -> str:
    """The type of a config's model, from its text and its bases': to read all configs would take a minute."""
    text = path.read_text(encoding='utf-8')
    kind = re.search(r"^model = dict\(\s*(?:_delete_=True,\s*)?type='(?:\w+\.)?(\w+)'", text, re.MULTILINE)
    if kind:
        return kind[1]
    base = re.search(r"^_base_ = '\./(.+)'", text, re.MULTILINE)
    return _model_type(path.parent / base[1]) if base else ''


@cache
def _read(path: Path) -> dict[str, Any]:
    try:
        return Config.fromfile(path, import_custom_modules=False).to_dict()
    except Exception:  # one that needs a package that is not here is no base of this run
        return {}
