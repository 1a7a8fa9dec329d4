"""Checks that options of the command line have a place in the config."""

from collections.abc import Mapping
from typing import Any

from mmengine.config import Config


def check_places(cfg: Config, options: Mapping[str, Any]) -> None:
    """Check that options can be put into a config, before mmengine fails to.

    Args:
        cfg: The config before the options are merged.
        options: By dotted key.

    Raises:
        ValueError: A key leads through a value that has no parts, to an entry that a list does not have, or to what
            another option sets as a whole.
    """
    tree = cfg.to_dict()
    for key, value in options.items():
        if reason := _misfit(tree, key, value):
            raise ValueError(f'--cfg-options {key}={value!r} does not fit the config: {reason}')
        whole = next((other for other in options if key.startswith(f'{other}.')), None)
        if whole:
            raise ValueError(f'--cfg-options {key}: {whole}, which holds it, is set as well; give one of the two')


def _misfit(node: Any, key: str, value: Any) -> str:
    parts = key.split('.')
    for i, part in enumerate(parts):
        place = '.'.join(parts[:i])
        if not part:
            return 'a part of the key between dots is empty'
        if isinstance(node, dict):
            if part not in node:
                return ''
            node = node[part]
        elif isinstance(node, list):
            if not (part.isdecimal() and part.isascii() and int(part) < len(node)):
                return f'{place} is a list of {len(node)}, so that a number from 0 on and below that follows'
            if i == len(parts) - 1 and not isinstance(value, dict):
                return f'set keys of {key}, as {key}.KEY=VALUE, or the whole list {place}'
            node = node[int(part)]
        else:
            return f'{place} is {node!r}, which has no parts'
    return ''
