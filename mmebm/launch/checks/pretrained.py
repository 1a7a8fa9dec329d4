"""Checks the weights that a config starts from, before any work is lost on weights that do not fit."""

import re

import torch
from mmengine.config import Config, ConfigDict
from torch import Tensor, nn

from mmebm.checkpoint import Checkpoint, check_fit, part, read_checkpoint
from mmebm.interchange.importing import NOT_THE_BACKBONE
from mmebm.model_building import build

# What is resized to the images of the task when it is loaded; and where pretraining and task may differ at a network's
# ends: SimMIM's and BEiT's mask token, the norms behind the last block and behind each stage that is returned.
MAY_DIFFER = re.compile(r'.*(pos_embed|relative_position).*|mask_token|(ln|norm|fc_norm)\d*\..*')


def check_pretrained(cfg: Config) -> None:
    """Check the files that a config's ``model.backbone`` is initialised from, those that are local.

    mmengine itself would load what fits, warn of the rest, and fall back to unpickling anything.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file is no checkpoint, holds what could run code, has nothing under the prefix, or is of another
            architecture.
    """
    backbone = cfg.get('model', {}).get('backbone', {})
    configs = backbone.get('init_cfg') or []
    for init_cfg in [configs] if isinstance(configs, dict) else configs:
        path = init_cfg.get('checkpoint', '')
        if path and ':' not in str(path):  # http://, torchvision://, open-mmlab://
            prefix = init_cfg.get('prefix') or ''
            check_architecture(read_checkpoint(path), backbone, cfg.get('default_scope'), prefix)


def check_architecture(
    checkpoint: Checkpoint, backbone: ConfigDict, scope: str | None, prefix: str = 'backbone.'
) -> None:
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
    expected = _build(backbone, scope).state_dict()
    state = part(checkpoint, prefix)
    state = {key: value for key, value in state.items() if key in expected or not NOT_THE_BACKBONE.fullmatch(key)}
    check_fit(_fixed(state), _fixed(expected), str(checkpoint.path), backbone.type)


def architecture(backbone: dict, scope: str | None) -> tuple[dict[str, torch.Size], list[int]]:
    """What two backbones of a type have in common if they are the same network: shapes of weights, and heads.

    Args:
        backbone: The backbone's config.
        scope: In which it builds.
    """
    model = _build(backbone, scope)
    heads = [module.num_heads for module in model.modules() if isinstance(getattr(module, 'num_heads', None), int)]
    return {key: value.shape for key, value in _fixed(model.state_dict()).items()}, heads


def _build(backbone: dict, scope: str | None) -> nn.Module:
    return build(ConfigDict(backbone, init_cfg=None), scope)


def _fixed(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if not MAY_DIFFER.fullmatch(key)}
