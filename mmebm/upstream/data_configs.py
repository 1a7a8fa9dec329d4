"""Lets mmengine read JSON and YAML configs as data: nothing in them is executed (``mmebm/config_data.py``).

By itself, mmengine builds any Python object that a tag of a YAML file names, and calls, when it builds from a config,
anything that ``type`` names by its module, such as ``subprocess.Popen``.
"""

from types import ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.fileio import load

from mmebm.config_data import check_base, check_data, check_keys, is_data
from mmebm.upstream.after_import import after_import


def install() -> None:
    """Puts the checks into mmengine's reading of configs."""
    after_import('mmengine.fileio.handlers.yaml_handler', _install_safe_yaml)
    _install_checks()


def _install_safe_yaml(module: ModuleType) -> None:
    import yaml

    class Loader(getattr(yaml, 'CSafeLoader', yaml.SafeLoader)):  # type: ignore[misc]
        """The safe one, which also reads the tuples that a dumped config has."""

    def construct_tuple(loader: Any, node: Any) -> tuple:
        return tuple(loader.construct_sequence(node, deep=True))

    Loader.add_constructor('tag:yaml.org,2002:python/tuple', construct_tuple)
    module.Loader = Loader  # type: ignore[attr-defined]


def _install_checks() -> None:
    get_cfg_path, file2dict = Config._get_cfg_path, Config._file2dict
    get_base_files = Config._get_base_files

    def get_checked_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        base, scope = get_cfg_path(cfg_path, filename)
        if is_data(filename):
            check_base(base, filename)
        return base, scope

    def read_checked(filename: str, *args: Any, **kwargs: Any) -> tuple[dict, str, dict]:
        if not is_data(filename):
            return file2dict(filename, *args, **kwargs)
        try:
            result = file2dict(filename, *args, **kwargs)
        except (KeyError, OSError, ImportError):
            raise
        except Exception as error:  # each parser raises its own
            if 'is refused' in str(error):
                raise
            reason = ' '.join(str(error).split())
            raise ValueError(f'{filename} cannot be read as a config: {type(error).__name__}: {reason}') from error
        check_data(result[0], filename)
        return result

    def get_checked_bases(filename: str) -> list[str]:
        if is_data(filename):
            check_keys(load(filename))
        return get_base_files(filename)

    Config._get_cfg_path = staticmethod(get_checked_path)
    Config._file2dict = staticmethod(read_checked)
    Config._get_base_files = staticmethod(get_checked_bases)
