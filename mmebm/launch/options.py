"""Puts the command line's options into a config; ``data_root`` reaches the data sets."""

import difflib
import inspect
import warnings
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner

from mmebm.config_tree import nested, nested_dicts
from mmebm.error_text import first_few
from mmebm.launch.checks.arguments import check_arguments
from mmebm.launch.checks.places import check_places
from mmebm.launch.schedule import follow_length, training_length
from mmebm.model_building import type_name

# Data sets of mmpretrain that fetch their files into data_root, so it need not exist.
SELF_DOWNLOADING = {'CIFAR10', 'CIFAR100', 'MNIST', 'FashionMNIST'}

# Top-level keys that are read when a runner is built or runs: the arguments of mmengine's runner, what it reads beside
# them, and what its FlexibleRunner does.
RUNNER_KEYS = inspect.signature(Runner.__init__).parameters.keys() - {'self', 'cfg'} | {
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'init_weights_for_test_or_val',
    'model_wrapper_cfg',
    'runner_type',
    'strategy',
    'sync_bn',
}


def merge_options(cfg: Config, options: dict[str, Any]) -> None:
    """Put the command line's options into a config, in place; the schedule follows the length of the training.

    Args:
        cfg: The config as its file says.
        options: The command line's ``--cfg-options``, by dotted key.

    Raises:
        ValueError: An option does not fit the config, would change nothing, or is no argument of the model.
    """
    check_places(cfg, options)
    try:
        _merge(cfg, options)
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        given = ' '.join(f'{key}={value!r}' for key, value in options.items())
        raise ValueError(f'--cfg-options {given} does not fit the config: {type(error).__name__}: {error}') from error


def _merge(cfg: Config, options: dict[str, Any]) -> None:
    roots = {key: cfg[key] for key in options if key.endswith('data_root') and key in cfg}
    warn_unknown_options(cfg, options)
    refuse_variables(cfg, [key for key in options if key not in roots])
    length = training_length(cfg)
    cfg.merge_from_dict(options | _other_initialisations(cfg, options))
    follow_length(cfg, length, options)
    check_arguments(cfg, options)  # of the model that the options may have chosen
    set_alone = {key.removesuffix('.data_root') for key in options if key.endswith('.data_root')}
    replace_data_roots(cfg, [(old, str(options[key])) for key, old in roots.items()], set_alone)


def _other_initialisations(cfg: Config, options: dict[str, Any]) -> dict[str, bool]:
    """Options that drop the arguments of each ``init_cfg`` to which the options give another type: they are not its."""
    new = {key.removesuffix('.type'): value for key, value in options.items() if key.endswith('init_cfg.type')}
    found = ((path, node) for path, node in nested(cfg._cfg_dict) if path in new)
    return {
        f'{path}._delete_': True
        for path, node in found
        if not (isinstance(node, dict) and node.get('type') == new[path])
    }


def replace_data_root(cfg: Config, old: str, new: str) -> None:
    """See ``replace_data_roots``."""
    replace_data_roots(cfg, [(old, new)])


def replace_data_roots(cfg: Config, roots: Iterable[tuple[str, str]], set_alone: Collection[str] = ()) -> None:
    """Gives every data set in the config that has an old ``data_root`` the new one, in place.

    A config's variables are substituted when the file is parsed, so that changing the top-level ``data_root`` later
    reaches no data set. Annotation files below the old root (COCO's metrics name one) follow.

    Args:
        cfg: The config.
        roots: Old and new ones. One that is new for some data sets may be the old one of others.
        set_alone: Dotted keys of data sets that keep theirs.

    Raises:
        ValueError: no data set has an old root, so that the new one would be ignored.
    """
    left = [node for path, node in nested_dicts(cfg._cfg_dict) if path and path not in set_alone]
    for old, new in roots:
        moved = [node for node in left if _move(node, old.rstrip('/'), new)]
        if not any('data_root' in node for node in moved):
            raise ValueError(
                f'No data set of the config reads from "{old}", so "{new}" would be ignored: name the data set in '
                'full, as in --cfg-options test_dataloader.dataset.data_root=FOLDER'
            )
        left = [node for node in left if all(node is not other for other in moved)]


def _move(node: dict, old: str, new: str) -> bool:
    """Makes what a config's node reads from one folder be read from another; whether there is anything."""
    root, annotations = node.get('data_root'), node.get('ann_file')
    is_root = isinstance(root, str) and root.rstrip('/') == old
    is_below = isinstance(annotations, str) and annotations.startswith(f'{old}/')
    if is_root:
        node['data_root'] = new
    if is_below:
        node['ann_file'] = new.rstrip('/') + annotations[len(old) :]
    return is_root or is_below


def check_data_roots(cfg: Config, sections: tuple[str, ...], advice: str = '') -> None:
    """Checks that the folders of the data sets exist.

    Args:
        cfg: The merged config.
        sections: The top-level keys whose data sets will be read, such as ``train_dataloader``.
        advice: What to do, for the error; by default the option that names the folder.

    Raises:
        FileNotFoundError: a data set's ``data_root`` is no folder here.
        ValueError: it is a web address, and no list says what is there.
    """
    for section in sections:
        for path, node in nested_dicts(cfg.get(section), section):
            root = node.get('data_root')
            if str(root).startswith(('http://', 'https://')) and not node.get('ann_file'):
                raise ValueError(f'{path}.data_root={root}: no folder can be listed over HTTP; download it first')
            downloads = node.get('download', type_name(node) in SELF_DOWNLOADING)
            if not isinstance(root, str) or not root or '://' in root or downloads:
                continue
            if not Path(root).is_dir():
                option = next(
                    (key for key in cfg if key.endswith('data_root') and cfg[key] == root), f'{path}.data_root'
                )
                fault = 'is no folder, but a file' if Path(root).exists() else 'does not exist'
                raise FileNotFoundError(
                    f'The folder "{root}" ({path}.data_root) {fault}. '
                    + (advice or f"Name the data set's folder: --cfg-options {option}=FOLDER")
                )


def warn_unknown_options(cfg: Config, options: dict[str, Any]) -> None:
    """Warns of each option that neither the config nor the runner knows by its first component.

    Args:
        cfg: The config before the options are merged.
        options: The command line's ``--cfg-options``, by dotted key.
    """
    known = {*cfg.keys(), *RUNNER_KEYS}
    for key in options:
        first = key.partition('.')[0]
        if first in known:
            continue
        close = difflib.get_close_matches(first, known, n=3)
        hint = f' Did you mean {", ".join(close)}?' if close else ''
        warnings.warn(f'--cfg-options {key}: the config has no "{first}".{hint}', stacklevel=2)


def refuse_variables(cfg: Config, options: Iterable[str]) -> None:
    """Refuse options that name a variable of the config file, which nothing reads any more.

    A config's variables are substituted when the file is parsed, so that changing one later changes nothing. One whose
    value is nowhere in what a runner reads may be for a hook of the user's own, and only a warning is given.

    Args:
        cfg: The config before the options are merged.
        options: Their dotted keys.

    Raises:
        ValueError: Names the option, and where the variable's value is now.

    Warns:
        UserWarning: The option changes nothing that a runner reads.
    """
    for key in options:
        first, dot, rest = key.partition('.')
        if first in RUNNER_KEYS or first not in cfg:
            continue
        places = [f'{place}{dot}{rest}' for place in places_of(cfg, first)]
        if places:
            raise ValueError(
                f'--cfg-options {key}: "{first}" is a variable of the config file, whose value was used when the file '
                f'was read, so that the option would change nothing. What is used is at '
                f'{first_few(places)}; set it there'
            )
        warnings.warn(f'--cfg-options {key}: no part of a training or a test reads "{first}".', stacklevel=3)


def places_of(cfg: Config, variable: str) -> list[str]:
    """The dotted paths of what a runner reads that have a variable's value; those that end in its name, if some do.

    A dict or a list that was inherited and changed is nowhere as it is now; then those of its name.
    """
    value = cfg[variable]
    found = list(nested({key: cfg[key] for key in cfg if key in RUNNER_KEYS}))
    places = [path for path, node in found if type(node) is type(value) and node == value]
    if not places and isinstance(value, (dict, list)):
        return [path for path, _ in found if path.endswith(f'.{variable}')]
    return [path for path in places if path.endswith(f'.{variable}')] or places  # numbers are often equal by accident
