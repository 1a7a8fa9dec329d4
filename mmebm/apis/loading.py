"""Models for a ``Restorer``: from a config and a checkpoint, from a checkpoint alone, or as they are."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.logging import MMLogger
from mmengine.registry import TRANSFORMS as ROOT_TRANSFORMS
from mmpretrain.registry import MODELS as THEIR_MODELS
from mmpretrain.registry import TRANSFORMS as THEIR_TRANSFORMS
from torch import nn

import mmebm.upstream.quiet_imports  # noqa: F401  (before mmpretrain's models)
from mmebm.checkpoint import Checkpoint, read_checkpoint, stored_values
from mmebm.config_files import find_config
from mmebm.config_tree import nested_dicts
from mmebm.launch.checks.tested import AUXILIARY
from mmebm.misfit import COMPUTED, load
from mmebm.model_building import build, complete_model_config, unwrapped
from mmebm.registry import MODELS, TRANSFORMS

# What is read of the config that is stored in a checkpoint.
PARTS = ('model', 'data_preprocessor', 'default_scope', 'test_dataloader', 'val_dataloader')
ADVICE = 'give the config that it was trained with, and the checkpoint behind it (--config FILE --checkpoint FILE)'


class Loaded(NamedTuple):
    """A model, its config, and the metadata of its checkpoint, which are empty if there is none."""

    model: nn.Module
    config: Config
    meta: dict[str, Any]


def load_model(model: str | Path | Config | nn.Module, checkpoint: str | Path | None) -> Loaded:
    """A model with the weights of a checkpoint.

    Args:
        model: Path of a config, name of one of mmebm's or mmpretrain's, or a config; a model; or the path of a
            checkpoint, in which mmengine stored the config, which is read as data and builds registered types alone.
        checkpoint: Its weights; None: those that it has, of a config random ones.

    Raises:
        FileNotFoundError: There is no such file or config.
        TypeError: ``model`` is none of these.
        ValueError: The checkpoint is damaged, of another model, or does not say its config.
    """
    if isinstance(model, nn.Module):
        model = unwrapped(model)
        loaded = Loaded(model, getattr(model, '_config', None) or Config(), {})
        return _with_weights(loaded, read_checkpoint(checkpoint)) if checkpoint else loaded
    if isinstance(model, (str, Path)) and Path(model).suffix in ('.pth', '.pt', '.safetensors'):
        if checkpoint is not None:
            raise ValueError(f'two checkpoints, {model} and {checkpoint}: give a config first, or one checkpoint alone')
        source = read_checkpoint(model)
        config = Config(_refuse_others(source, stored_values(source, PARTS, ADVICE)))
        if 'model' not in config:
            raise ValueError(f'The config in {source.path} has no model; {ADVICE}')
        return _with_weights(Loaded(_build(config), config, {}), source)
    if not isinstance(model, (str, Path, Config)):
        raise TypeError(f'model must be a name, a path, a Config or a model, not {type(model).__name__}')
    config = model if isinstance(model, Config) else find_any_config(str(model))
    if checkpoint is not None:
        return _with_weights(Loaded(_build(config), config, {}), read_checkpoint(checkpoint))
    built = build(complete_model_config(config), config.get('default_scope'))
    logger = MMLogger.get_current_instance()
    level = logger.level
    logger.setLevel('WARNING')  # mmengine logs how each weight is initialised
    try:
        built.init_weights()
    finally:
        logger.setLevel(level)
    logger.warning('Restorer: no checkpoint is given, so the weights are those of a model before training')
    return Loaded(built, config, {})


def find_any_config(name: str) -> Config:
    """The config at a path, or of a name of mmebm's or of mmpretrain's.

    Raises:
        FileNotFoundError: There is none.
    """
    try:
        return Config.fromfile(find_config(name))
    except FileNotFoundError as error:
        from mmpretrain.apis.model import ModelHub

        try:
            return ModelHub.get(name).config
        except ValueError:
            raise error from None


def _build(config: Config) -> nn.Module:
    """A config's model, whose parts load no weights: they come with the checkpoint's."""
    parts = complete_model_config(config)
    for _, node in [('', parts), *nested_dicts(parts)]:
        node.pop('init_cfg', None)
        node.pop('checkpoint_path', None)
        if 'pretrained' in node:
            node['pretrained'] = False
    return build(parts, config.get('default_scope'))


def _with_weights(loaded: Loaded, checkpoint: Checkpoint) -> Loaded:
    state = {key.removeprefix('module.'): value for key, value in checkpoint.state.items()}
    misfit = load(loaded.model, state, str(checkpoint.path)).without(COMPUTED).without(AUXILIARY)
    if any(misfit):
        raise ValueError(
            f'{checkpoint.path} holds other weights than those of a {type(loaded.model).__name__} of this config: '
            f'{misfit}. Give the config, with the options, that it was trained with'
        )
    return loaded._replace(meta=checkpoint.meta)


def _refuse_others(checkpoint: Checkpoint, values: dict[str, Any]) -> dict[str, Any]:
    """The values, if their types are registered; from others mmengine would import any callable.

    Raises:
        ValueError: There is another.
    """
    for place, node in nested_dicts(values):
        kind = node.get('type') if isinstance(node, Mapping) else None
        is_built = place.startswith(('model', 'data_preprocessor')) or '.pipeline' in place
        is_left_out = 'init_cfg' in place.split('.')  # by _build
        if is_built and not is_left_out and kind is not None and not _is_registered(str(kind)):
            raise ValueError(
                f'The config in {checkpoint.path} has the type {kind!r} at {place}, which is not registered; from what '
                f'a checkpoint says, only registered types are built. If you trust it, {ADVICE}'
            )
    return values


def _is_registered(kind: str) -> bool:
    scope, _, name = kind.rpartition('.')
    registries = (MODELS, TRANSFORMS, THEIR_MODELS, THEIR_TRANSFORMS, ROOT_TRANSFORMS)
    for registry in registries:
        registry.import_from_location()
    families = {registry.scope: registry for registry in registries}
    tables = [registry.module_dict for registry in registries if not scope or registry.scope == scope]
    tables += [registry.parent.module_dict for registry in registries if registry.parent and not scope]
    return (not scope or scope in families) and any(name in table for table in tables)
