"""Finds a config by name, and makes ``data_root`` on the command line reach the data sets."""

import difflib
import inspect
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

PACKAGE = Path(__file__).resolve().parents[1]

# Data sets of mmpretrain that fetch their files into data_root, so it need not exist.
SELF_DOWNLOADING = {'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'}

# Top-level keys that the runner reads although they are no arguments of it.
RUNNER_KEYS = {
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'runner_type',
    'sync_bn',
}


def config_folder() -> Path:
    """The folder of mmebm's configs: in the installed package, or beside it in a plain checkout."""
    installed = PACKAGE / '.mim' / 'configs'
    return installed if installed.is_dir() else PACKAGE.parent / 'configs'


def find_config(name: str) -> Path:
    """The config file for a path, or for the name of one of mmebm's configs such as ``ebm_vit-b_in1k``.

    Args:
        name: A path, or a name within mmebm's configs; the folder and the ending ``.py`` may be left out.

    Raises:
        FileNotFoundError: there is no such file, nor a config of that name.
        ValueError: the name fits several configs.
    """
    if Path(name).is_file():
        return Path(name)
    folder = config_folder()
    wanted = Path(name if name.endswith('.py') else f'{name}.py')
    known = {path.relative_to(folder) for path in folder.rglob('*.py') if '_base_' not in path.parts}
    exact = {wanted, wanted.relative_to('configs')} if wanted.parts[0] == 'configs' else {wanted}
    found = sorted(known & exact) or sorted(path for path in known if path.name == str(wanted))
    if len(found) > 1:
        raise ValueError(f'Config "{name}" is not unique, give one of: {", ".join(map(str, found))}')
    if not found:
        close = difflib.get_close_matches(str(wanted), sorted(map(str, known)), n=3, cutoff=0.4)
        hint = f' Close names: {", ".join(close)}.' if close else ''
        raise FileNotFoundError(f'No config file "{name}", and no config of that name in {folder}.{hint}')
    return folder / found[0]


def replace_data_root(cfg: Config, old: str, new: str) -> None:
    """Gives every data set in the config that has the old ``data_root`` the new one, in place.

    A config's variables are substituted when the file is parsed, so that changing the top-level ``data_root`` later
    reaches no data set. Annotation files below the old root (COCO's metrics name one) follow.

    Raises:
        ValueError: no data set has the old root, so that the new one would be ignored.
    """
    old = old.rstrip('/')
    found = False
    for path, node in nested_dicts(cfg._cfg_dict):
        root, annotations = node.get('data_root'), node.get('ann_file')
        if path and isinstance(root, str) and root.rstrip('/') == old:
            node['data_root'] = new
            found = True
        if isinstance(annotations, str) and annotations.startswith(f'{old}/'):
            node['ann_file'] = new.rstrip('/') + annotations[len(old) :]
    if not found:
        raise ValueError(
            f'No data set of the config reads from "{old}", so "{new}" would be ignored: name the data set in full, as '
            'in --cfg-options test_dataloader.dataset.data_root=FOLDER'
        )


def check_data_roots(cfg: Config, sections: tuple[str, ...]) -> None:
    """Checks that the folders of the data sets exist.

    Args:
        cfg: The merged config.
        sections: The top-level keys whose data sets will be read, such as ``train_dataloader``.

    Raises:
        FileNotFoundError: a data set's ``data_root`` is no folder here.
    """
    for section in sections:
        for path, node in nested_dicts(cfg.get(section), section):
            root = node.get('data_root')
            downloads = node.get('download', str(node.get('type')).rpartition('.')[2] in SELF_DOWNLOADING)
            if not isinstance(root, str) or not root or '://' in root or downloads:
                continue
            if not Path(root).is_dir():
                option = next(
                    (key for key in cfg if key.endswith('data_root') and cfg[key] == root), f'{path}.data_root'
                )
                raise FileNotFoundError(
                    f'The folder "{root}" ({path}.data_root) does not exist. '
                    f"Name the data set's folder: --cfg-options {option}=FOLDER"
                )


def warn_unknown_options(cfg: Config, options: dict[str, Any]) -> None:
    """Warns of each option that neither the config nor the runner knows by its first component.

    Args:
        cfg: The config before the options are merged.
        options: The command line's ``--cfg-options``, by dotted key.
    """
    known = {*cfg.keys(), *inspect.signature(Runner.__init__).parameters, *RUNNER_KEYS} - {'self', 'cfg'}
    for key in options:
        first = key.partition('.')[0]
        if first in known:
            continue
        close = difflib.get_close_matches(first, known, n=3)
        hint = f' Did you mean {", ".join(close)}?' if close else ''
        warnings.warn(f'--cfg-options {key}: the config has no "{first}".{hint}', stacklevel=2)


def nested_dicts(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in a config tree, outermost first, with its dotted path."""
    if isinstance(node, dict):
        yield path, node
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from nested_dicts(child, f'{path}.{key}' if path else str(key))
