"""Runs mmpretrain's own train and test scripts, with mmebm's handling of configs."""

import gc
import importlib.util
import sys
import warnings
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmebm.checkpoint import read_checkpoint
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.checks.engines import check_engine_config
from mmebm.launch.checks.pretrained import check_pretrained
from mmebm.launch.options import check_data_roots, find_config, merge_options, nested_dicts


def load_script(name: str) -> ModuleType:
    """Imports ``tools/<name>.py`` of the installed mmpretrain as a fresh module."""
    package = Path(importlib.util.find_spec('mmpretrain').origin).parent
    path = package / '.mim' / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'mmpretrain_{name}', path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    return script


def run_script(script: ModuleType, argv: Sequence[str] | None, sections: tuple[str, ...]) -> None:
    """Runs the script's ``main`` with its ``parse_args`` and ``merge_args`` extended.

    Args:
        script: mmpretrain's script, from `load_script`.
        argv: The command line without the program's name; None for ``sys.argv``.
        sections: The config's top-level keys whose data sets the script reads.
    """
    parse_args, merge_args = script.parse_args, script.merge_args

    def parse_with_config_name() -> Namespace:
        args = parse_args()
        args.config = str(find_config(args.config))
        return args

    def merge_with_data_roots(cfg: Config, args: Namespace) -> Config:
        _mend_collate(cfg)
        options, args.cfg_options = args.cfg_options or {}, None  # which the script would merge last, unchecked
        cfg = merge_args(cfg, args)
        merge_options(cfg, options)
        if not hasattr(args, 'resume'):
            # A test needs weights alone. To resume, which MAE's config asks for, the runner would read training data.
            cfg.resume = False
        if 'train_dataloader' in sections:
            check_engine_config(cfg)
            check_auto_scale(cfg)
        check_data_roots(cfg, sections)
        check_classes(cfg, sections)
        if 'train_dataloader' in sections:
            check_pretrained(cfg)
        elif cfg.get('load_from') and '://' not in cfg.load_from:
            read_checkpoint(cfg.load_from)
        if get_device() == 'cpu':
            adapt_to_cpu(cfg)
        return cfg

    script.parse_args, script.merge_args = parse_with_config_name, merge_with_data_roots
    original_argv = sys.argv
    if argv is not None:
        sys.argv = [original_argv[0], *argv]
    try:
        script.main()
    finally:
        sys.argv = original_argv
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        # A process whose communication threads still run at exit is sometimes aborted, and its job with it. They run
        # for as long as the wrapped model lives, and the runner, which holds it, is part of a reference cycle.
        gc.collect()
        torch.distributed.destroy_process_group()


def check_auto_scale(cfg: Config) -> None:
    """Refuse ``--auto-scale-lr`` where mmengine would scale for a batch that is not the training's.

    Raises:
        ValueError: Batches are accumulated, which it does not count.
    """
    counts = (cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
    if (cfg.get('auto_scale_lr') or {}).get('enable') and counts > 1:
        raise ValueError(
            f'--auto-scale-lr leaves optim_wrapper.accumulative_counts={counts} out of the total batch, so that the '
            f'learning rate would be {counts} times too small; tools/plan.py CONFIG --gpus N --gpu KIND gives the '
            'right one, for --cfg-options optim_wrapper.optimizer.lr=...'
        )


def _mend_collate(cfg: Config) -> None:
    """Makes the dataloaders collate as their config says."""
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        dataloader = cfg.get(section)
        if dataloader is None:
            continue
        if cfg.get('default_scope') in ('mmseg', 'mmdet'):
            # The runner's default; mmpretrain's script would set its own.
            dataloader.setdefault('collate_fn', dict(type='pseudo_collate'))
        if isinstance(dataloader.get('collate_fn'), dict):
            # Comes with inheritance from `mmpretrain::`, and the runner would pass it to the function.
            dataloader.collate_fn.pop('_scope_', None)


def adapt_to_cpu(cfg: Config) -> None:
    """Lets a config for GPUs run without one: in float32, and with gloo between processes."""
    wrapper = cfg.get('optim_wrapper') or {}
    if wrapper.get('type') == 'AmpOptimWrapper':
        warnings.warn("No GPU here: training in float32, since mmengine's AmpOptimWrapper needs one.", stacklevel=2)
        wrapper.type = 'OptimWrapper'
        for option in ('loss_scale', 'dtype', 'use_fsdp'):
            wrapper.pop(option, None)
    if cfg.get('launcher') == 'pytorch':  # mmengine itself would ask for a CUDA device, twice
        torch.distributed.init_process_group('gloo')
        for _, node in nested_dicts(cfg._cfg_dict):
            if node.get('type') == 'SyncBN':  # needs GPUs as well
                node['type'] = 'BN'
        cfg.setdefault(
            'model_wrapper_cfg', dict(type='MMDistributedDataParallel', device_ids=None, broadcast_buffers=False)
        )
