"""Models from configs: what a config's types are called, how its model is built, and how a wrapped one is unwrapped."""

import contextlib
import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.device import get_device
from mmengine.model import is_model_wrapper
from mmengine.registry import DefaultScope, Registry
from torch import nn

from mmebm.registry import MODELS


def type_name(config: Mapping[str, Any] | str | type | None) -> str:
    """The type in a config without its scope or module; empty if there is none.

    Args:
        config: A config with a ``type``, or the type itself: a registered name, or a class.
    """
    kind = config.get('type') if isinstance(config, Mapping) else config
    return (kind if isinstance(kind, str) else getattr(kind, '__name__', '')).rpartition('.')[2]


def model_class(cfg: Mapping[str, Any]) -> type | None:
    """The class of a config's model; None if it has none, or one that is not registered."""
    return class_of(cfg.get('model'), MODELS, cfg.get('default_scope'))


def class_of(config: Mapping[str, Any] | None, registry: Registry, scope: str | None = None) -> type | None:
    """The class of a config's ``type``; None if it has none, or one that is not registered.

    Args:
        config: A config with a ``type``.
        registry: Of such types.
        scope: In which it is meant; by default mmpretrain's.
    """
    kind = (config or {}).get('type')
    if not isinstance(kind, str):
        return kind
    with (
        registry.switch_scope_and_registry(scope or 'mmpretrain') as meant,
        contextlib.suppress(RuntimeError, TypeError),
    ):
        return meant.get(kind)  # names that cannot be, as an empty one or ".a", are errors there
    return None


def complete_model_config(cfg: Mapping) -> dict[str, Any]:
    """A copy of a config's ``model``, with the ``data_preprocessor`` beside it where it has none of its own."""
    return copy.deepcopy(dict(data_preprocessor=cfg.get('data_preprocessor')) | dict(cfg['model']))


def build(config: Mapping[str, Any], scope: str | None = None) -> nn.Module:
    """Build a model or a part of one; the config stays as it is.

    Args:
        config: Of what to build.
        scope: In which its types are meant; by default mmpretrain's.
    """
    with DefaultScope.overwrite_default_scope(scope or 'mmpretrain'):
        return MODELS.build(copy.deepcopy(config))


def build_initialized(cfg: Config) -> nn.Module:
    """A config's model with its data preprocessor and its initial weights, on the device at hand."""
    model = build(complete_model_config(cfg), cfg.get('default_scope'))
    model.init_weights()
    return model.to(get_device())


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, of one that may be wrapped by DistributedDataParallel or the like."""
    return model.module if is_model_wrapper(model) else model
