"""Configs as trees: their nodes by dotted path, and where two of them differ."""

from collections.abc import Iterator, Mapping
from typing import Any


def nested_dicts(node: Any, path: str = '') -> Iterator[tuple[str, dict]]:
    """Every dict in a config tree, outermost first, with its dotted path."""
    return ((place, child) for place, child in nested(node, path) if isinstance(child, dict))


def nested(node: Any, path: str = '') -> Iterator[tuple[str, Any]]:
    """Everything in a config tree, outermost first, with its dotted path."""
    yield path, node
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, (list, tuple)):
        children = enumerate(node)
    else:
        return
    for key, child in children:
        yield from nested(child, f'{path}.{key}' if path else str(key))


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The values that differ between two configs, old and new, by dotted path; None stands for one that is not set."""
    olds, news = _leaves(old), _leaves(new)
    paths = [*olds, *(path for path in news if path not in olds)]
    pairs = {path: (olds.get(path), news.get(path)) for path in paths}
    return {path: (a, b) for path, (a, b) in pairs.items() if a != b}


def _leaves(config: Mapping[str, Any]) -> dict[str, Any]:
    return {path: node for path, node in nested(config) if not (node and isinstance(node, (dict, list, tuple)))}
