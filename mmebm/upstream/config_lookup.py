"""Lets mmengine find mmebm's configs: ``_base_ = 'mmebm::NAME'`` and ``mmengine.hub.get_config('mmebm::NAME')``.

mmengine's own look-up wants a folder in the name, which the pretraining configs do not have, and a ``.mim`` folder in
the package, which a checkout that is not installed does not have. It would also read what is inherited in the scope
``mmebm``, where mmpretrain's types are unknown; here it is read as if inherited by its path.
"""

import ast
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from mmengine.config import Config
from mmengine.config.utils import ConfigParsingError

from mmebm.config_files import config_folder, find_shipped_config
from mmebm.upstream.after_import import after_import

PREFIX = 'mmebm::'


def install() -> None:
    """Puts the look-up in front of mmengine's."""
    _install_inheritance()
    _install_python_style()
    after_import('mmengine.hub.hub', _install_hub)


def _install_inheritance() -> None:
    theirs = Config._get_cfg_path

    def get_cfg_path(cfg_path: str, filename: str) -> tuple[str, str | None]:
        if cfg_path.startswith(PREFIX):
            return str(find_shipped_config(cfg_path.removeprefix(PREFIX))), None
        return theirs(cfg_path, filename)

    Config._get_cfg_path = staticmethod(get_cfg_path)


def _install_python_style() -> None:
    theirs = Config._get_base_modules

    def get_base_modules(nodes: list[ast.stmt]) -> list[str]:
        modules = theirs(nodes)
        for module in modules:
            if module.split('.')[0] == 'mmebm':
                raise ConfigParsingError(
                    f'`from {module} import ...`: the configs of mmebm are text configs, from which a Python-style '
                    "config (`with read_base()`) cannot inherit. Write a text config: `_base_ = 'mmebm::NAME.py'`, "
                    f'where NAME.py is a file below {config_folder()}, such as ebm_vit-b_in1k.py'
                )
        return modules

    Config._get_base_modules = staticmethod(get_base_modules)


def _install_hub(hub: ModuleType) -> None:
    # What `get_config` calls, so that it works wherever it has been imported before.
    split_name, get_metainfo, get_model = hub._get_package_and_cfg_path, hub._get_cfg_metainfo, hub.get_model

    def get_package_and_cfg_path(cfg_path: str) -> tuple[str, str]:
        if cfg_path.startswith(PREFIX):
            return 'mmebm', str(find_shipped_config(cfg_path.removeprefix(PREFIX)))
        return split_name(cfg_path)

    def get_cfg_metainfo(package_path: str, cfg_path: str) -> dict[str, Any]:
        if Path(cfg_path).is_absolute():  # from the function above; no weights are published
            return dict(Config=cfg_path)
        return get_metainfo(package_path, cfg_path)

    def get_our_model(cfg_path: str, pretrained: bool = False, **kwargs: Any) -> Any:
        if not cfg_path.startswith(PREFIX):
            return get_model(cfg_path, pretrained, **kwargs)
        from mmebm.model_building import build, complete_model_config

        cfg = hub.get_config(cfg_path, pretrained)
        return build(complete_model_config(cfg) | kwargs, cfg.get('default_scope'))

    hub._get_package_and_cfg_path = get_package_and_cfg_path
    hub._get_cfg_metainfo = get_cfg_metainfo
    hub.get_model = get_our_model
    if 'mmengine.hub' in sys.modules:
        sys.modules['mmengine.hub'].get_model = get_our_model
