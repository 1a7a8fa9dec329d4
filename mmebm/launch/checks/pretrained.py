"""Checks the weights that a training starts from, before any work is lost on weights that do not fit.

mmengine itself would load what fits, warn of the rest, and fall back to unpickling anything.
"""

import re
import warnings
from collections.abc import Mapping

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmebm.checkpoint import Checkpoint, loading_configs, part, read_loadable
from mmebm.config_tree import nested, nested_dicts
from mmebm.interchange.importing import NOT_THE_BACKBONE
from mmebm.misfit import COMPUTED, Misfit, load
from mmebm.model_building import build, complete_model_config

BACKBONE = 'backbone.'

POSITIONS = re.compile(r'.*(pos_embed|relative_position).*')

# Where pretraining and task may differ at a network's ends: SimMIM's and BEiT's mask token, the norms behind the last
# block and behind each stage that is returned.
ENDS = r'mask_token|(ln|norm|fc_norm)\d*\..*'

FROM_BACKBONE = (
    '--cfg-options model.backbone.init_cfg.type=Pretrained model.backbone.init_cfg.checkpoint={} '
    'model.backbone.init_cfg.prefix=backbone.'
)


def forget_pretrained(cfg: Config) -> None:
    """Let a training that is resumed do without the files that its model was initialised from, in place.

    The checkpoint replaces their weights, and they may be gone.
    """
    for _, node in nested_dicts(cfg.get('model')):
        if loading_configs(node.get('init_cfg')):
            node['init_cfg'] = None
        if isinstance(node.get('pretrained'), str):
            node['pretrained'] = None


def check_pretrained(cfg: Config) -> None:
    """Check the files that a config's model, or a part of it, is initialised from (``init_cfg``).

    Raises:
        FileNotFoundError: There is no such file; names the key.
        ValueError: The file is no checkpoint, holds what could run code, has nothing under the prefix, or is of another
            architecture.
    """
    parts = [node for _, node in nested_dicts(cfg.get('model'))]
    if not any(loading_configs(node.get('init_cfg')) or isinstance(node.get('pretrained'), str) for node in parts):
        return
    for module in build(complete_model_config(cfg), cfg.get('default_scope')).modules():
        for init_cfg in loading_configs(getattr(module, 'init_cfg', None)):
            path, prefix = str(init_cfg['checkpoint']), init_cfg.get('prefix') or ''
            if not _translates(module, path):
                _warn_of(check_start(module, part(_read_start(path, cfg), prefix), path), path)


def _read_start(path: str, cfg: Config) -> Checkpoint:
    try:
        return read_loadable(path)
    except FileNotFoundError as error:
        key = next((key for key, value in nested(cfg.get('model'), 'model') if value == path), 'init_cfg.checkpoint')
        raise FileNotFoundError(f'{error}: set --cfg-options {key}=FILE') from None


def check_load_from(cfg: Config) -> None:
    """Check the file that a training's model is loaded from, unless it is resumed.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: It cannot be read, is of another backbone, or holds only a part of the energy.

    Warns:
        UserWarning: Names what trains anew.
    """
    if not cfg.get('load_from') or cfg.get('resume') or cfg.get('model') is None:
        return
    model = build(complete_model_config(cfg), cfg.get('default_scope'))
    misfit = check_start(model, read_loadable(cfg.load_from).state, cfg.load_from)
    rest = {name for name, _ in model.named_parameters() if not name.startswith(BACKBONE)}
    anew = rest & {*misfit.missing, *misfit.reshaped}
    is_energy = getattr(model, 'differentiates_twice', False)
    if is_energy and anew and anew != rest:  # else its step size is not that of the energy
        raise ValueError(
            f'{cfg.load_from} holds another energy than that of the config: {misfit}. To start from its backbone '
            f'alone, give, in place of load_from, {FROM_BACKBONE.format(cfg.load_from)}'
        )
    _warn_of(misfit, cfg.load_from)


def check_architecture(checkpoint: Checkpoint, backbone: ConfigDict, scope: str | None, prefix: str = BACKBONE) -> None:
    """Check that a checkpoint is that of a backbone, but for what depends on the size of the images or on the task.

    Classifiers and decoders beside it are passed over.

    Args:
        checkpoint: Of which the part below ``prefix`` is meant.
        backbone: The backbone's config.
        scope: In which it builds.
        prefix: What the names of the backbone's weights start with.

    Raises:
        ValueError: It is not; names the first few weights that differ.
    """
    check_start(_build(backbone, scope), part(checkpoint, prefix), str(checkpoint.path))


def check_start(module: nn.Module, state: Mapping[str, Tensor], path: str) -> Misfit:
    """Check that a module can start from weights: all of its backbone, or all of itself if it has none.

    What a module resizes or renames when it is loaded fits. A model's other parts, such as a classifier of other
    classes, may train anew.

    Args:
        module: Loaded with what fits.
        state: The weights, by the module's names.
        path: Their file, for the error.

    Returns:
        What the model has beside the backbone and does not get.

    Raises:
        ValueError: They are of another architecture; names the first few weights that differ.
    """
    state = {re.sub(r'^module\.', '', key): value for key, value in state.items()}
    misfit = load(module, state, path)
    network = BACKBONE if any(name.startswith(BACKBONE) for name in module.state_dict()) else ''
    misfit = but_for_ends(misfit.without(COMPUTED), network)
    if _resizes_itself(module):
        misfit = misfit.without(POSITIONS)
    differing = misfit.within(network)
    if any(differing):
        name = type(module).__name__ if not network else f"the config's {type(module.backbone).__name__}"
        advice = ''
        if any(key.startswith(BACKBONE) for key in state) and not network:
            advice = f'. The network in it is under "{BACKBONE}": set init_cfg.prefix={BACKBONE}'
        elif not any(key.startswith(network) for key in state):
            advice = f'. It holds nothing under "{BACKBONE}"; a backbone alone is for model.backbone.init_cfg'
        raise ValueError(f'{path} is of another architecture than {name}: {differing}{advice}')
    return Misfit(misfit.missing, [], misfit.reshaped)


def but_for_ends(misfit: Misfit, network: str) -> Misfit:
    """A misfit without what may differ at a network's ends and lies behind it; its names start with ``network``."""
    misfit = misfit.without(re.compile(f'{re.escape(network)}({ENDS})'))
    behind = re.compile(re.escape(network) + NOT_THE_BACKBONE.pattern)
    return misfit._replace(unexpected=[key for key in misfit.unexpected if not behind.fullmatch(key)])


def architecture(backbone: dict, scope: str | None) -> tuple[dict[str, torch.Size], list[int]]:
    """What two backbones of a type have in common if they are the same network: shapes of weights, and heads.

    Args:
        backbone: The backbone's config.
        scope: In which it builds.
    """
    model = _build(backbone, scope)
    heads = [module.num_heads for module in model.modules() if isinstance(getattr(module, 'num_heads', None), int)]
    may_differ = re.compile(f'{POSITIONS.pattern}|{ENDS}')
    return {key: value.shape for key, value in model.state_dict().items() if not may_differ.fullmatch(key)}, heads


def _build(backbone: dict, scope: str | None) -> nn.Module:
    return build(ConfigDict(backbone, init_cfg=None), scope)


def _warn_of(anew: Misfit, path: str) -> None:
    if any(anew):
        warnings.warn(f'{path} does not hold all of the model, and these weights train anew: {anew}', stacklevel=3)


def _resizes_itself(module: nn.Module) -> bool:
    """Whether a module of mmseg or mmdet loads in a way of its own, and not when mmengine loads its weights."""
    return type(module).__module__.startswith(('mmseg.', 'mmdet.')) and 'init_weights' in vars(type(module))


def _translates(module: nn.Module, path: str) -> bool:
    """Whether such a module also translates names, as may be wanted for downloaded weights."""
    return _resizes_itself(module) and (getattr(module, 'convert_weights', False) or ':' in path)
