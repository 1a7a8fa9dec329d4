"""Adapts a config to the machine."""

import warnings
from datetime import timedelta

import torch
from mmengine.config import Config

from mmebm.config_tree import nested_dicts
from mmebm.engine.resuming.stop_signals import ending_at_once
from mmebm.model_building import type_name

# Of mmengine's AmpOptimWrapper; its OptimWrapper does not take them.
AMP_OPTIONS = ('loss_scale', 'dtype', 'use_fsdp')


def leave_out_amp_options(cfg: Config) -> None:
    """Let a config that inherits AmpOptimWrapper's options be trained by OptimWrapper, in float32."""
    wrapper = cfg.get('optim_wrapper') or {}
    if type_name(wrapper) == 'OptimWrapper':
        for option in AMP_OPTIONS:
            wrapper.pop(option, None)


def adapt_to_cpu(cfg: Config) -> None:
    """Let a config for GPUs run without one: in float32, with gloo between processes, and without pinned memory."""
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        (cfg.get(section) or {}).pop('pin_memory', None)  # torch would warn in every epoch
    wrapper = cfg.get('optim_wrapper') or {}
    if type_name(wrapper) == 'AmpOptimWrapper':
        warnings.warn("No GPU here: training in float32, since mmengine's AmpOptimWrapper needs one.", stacklevel=2)
        wrapper.type = 'OptimWrapper'
        leave_out_amp_options(cfg)
    if cfg.get('launcher') == 'pytorch':  # mmengine itself would ask for a CUDA device, twice
        with ending_at_once():
            torch.distributed.init_process_group('gloo', timeout=_timeout(cfg))
        for _, node in nested_dicts(cfg._cfg_dict):
            if type_name(node) == 'SyncBN':  # needs GPUs as well
                node['type'] = 'BN'
        ddp = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),  # as the runner's default one
        )
        cfg.setdefault('model_wrapper_cfg', ddp)


def _timeout(cfg: Config) -> timedelta | None:
    """How long processes wait for each other, where the config says so."""
    seconds = ((cfg.get('env_cfg') or {}).get('dist_cfg') or {}).get('timeout')
    if seconds is None:
        return None
    if not (isinstance(seconds, (int, float)) and seconds > 0):
        raise ValueError(f'env_cfg.dist_cfg.timeout={seconds!r} must be a number of seconds above 0')
    return timedelta(seconds=seconds)
