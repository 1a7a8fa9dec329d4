"""Runs mmpretrain's own train and test scripts, with mmebm's handling of configs."""

import gc
import importlib.util
import sys
import warnings
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType

import torch
from mmengine.config import Config
from mmengine.device import get_device

from mmebm.config_files import find_config
from mmebm.config_tree import nested_dicts
from mmebm.evaluation import DumpPredictions
from mmebm.launch.checks.channels import check_channels_of
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.checks.engines import check_engine_config
from mmebm.launch.checks.memory import check_memory
from mmebm.launch.checks.pretrained import check_load_from, check_pretrained
from mmebm.launch.checks.save_best import check_save_best
from mmebm.launch.checks.tested import check_tested
from mmebm.launch.command_line import OptionAction, expanded
from mmebm.launch.drawing import adapt_drawing, check_tta
from mmebm.launch.options import check_data_roots, merge_options
from mmebm.launch.runner import CheckedRunner
from mmebm.launch.start import check_readable, choose_start
from mmebm.launch.terminal import concise_terminal
from mmebm.model_building import type_name
from mmebm.quiet_imports import import_quietly


def train(argv: Sequence[str] | None = None) -> None:
    """Run mmpretrain's ``tools/train.py``.

    Args:
        argv: The command line without the program's name; None for ``sys.argv``.
    """
    run_script(load_script('train'), argv, prepare_training)


def test(argv: Sequence[str] | None = None) -> None:
    """Run mmpretrain's ``tools/test.py``; ``argv`` as in ``train``."""
    script = load_script('test')
    script.DumpResults = DumpPredictions  # for --out
    run_script(script, argv, prepare_test)


def load_script(name: str) -> ModuleType:
    """Import ``tools/<name>.py`` of the installed mmpretrain as a fresh module, with a runner that checks more."""
    package = Path(importlib.util.find_spec('mmpretrain').origin).parent
    path = package / '.mim' / 'tools' / f'{name}.py'
    spec = importlib.util.spec_from_file_location(f'mmpretrain_{name}', path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.Runner = CheckedRunner
    return script


def run_script(script: ModuleType, argv: Sequence[str] | None, prepare: Callable[[Config], None]) -> None:
    """Run the script's ``main`` with its ``parse_args`` and ``merge_args`` extended.

    Args:
        script: mmpretrain's script, from ``load_script``.
        argv: As in ``train``.
        prepare: Checks and completes the merged config, in place.
    """
    parse_args, merge_args = script.parse_args, script.merge_args

    def parse_with_config_name() -> Namespace:
        args = parse_args()
        texts = {name: value for name, value in vars(args).items() if isinstance(value, str)}
        vars(args).update({name: expanded(text) for name, text in texts.items()})  # as --work-dir=~/x
        args.config = str(find_config(args.config))
        return args

    def merge_checked(cfg: Config, args: Namespace) -> Config:
        import_quietly(*(f'{cfg.get("default_scope")}.{part}' for part in ('datasets', 'models')))
        mend_collate(cfg)
        if getattr(args, 'tta', False):
            check_tta(cfg)
        options, args.cfg_options = args.cfg_options or {}, None  # which the script would merge last, unchecked
        load_from = options.get('load_from') or cfg.get('load_from')
        cfg = merge_args(cfg, args)
        merge_options(cfg, options)
        if getattr(args, 'resume', None) == 'auto' or cfg.get('resume') and not cfg.get('load_from'):
            choose_start(cfg, load_from)
        work_dirs.append(Path(cfg.work_dir))
        prepare(cfg)
        if get_device() == 'cpu':
            adapt_to_cpu(cfg)
        return cfg

    script.parse_args, script.merge_args = parse_with_config_name, merge_checked
    script.DictAction = OptionAction
    original_argv = sys.argv
    if argv is not None:
        sys.argv = [original_argv[0], *argv]
    work_dirs: list[Path] = []
    try:
        with concise_terminal():
            script.main()
    except KeyboardInterrupt:
        raise KeyboardInterrupt(how_to_resume(work_dirs)) from None
    finally:
        sys.argv = original_argv
    leave_process_group()


def prepare_training(cfg: Config) -> None:
    """Check and complete a training's config, before any work is lost on what cannot succeed.

    Raises:
        FileNotFoundError: A data set's folder, or the weights to start or to resume from, are missing.
        ValueError: The engine, the scaling of learning rates, the classes, the weights, the memory, the checkpoint to
            resume from or the figure of the best one do not fit.
    """
    check_engine_config(cfg)
    check_auto_scale(cfg)
    check_data_roots(cfg, ('train_dataloader', 'val_dataloader', 'custom_hooks'))
    check_classes(cfg, ('train_dataloader', 'val_dataloader'))
    check_pretrained(cfg)
    check_load_from(cfg)
    check_memory(cfg)
    check_channels_of(cfg)
    check_save_best(cfg)
    # In every training, also of configs of mmpretrain, mmseg and mmdet.
    add_hook(cfg, 'BatchOfOneHook')
    if cfg.get('resume') and cfg.get('load_from'):
        check_readable(cfg.load_from)
        if 'runner_type' not in cfg:  # mmengine's FlexibleRunner resumes by itself
            add_hook(cfg, 'ResumeHook')


def add_hook(cfg: Config, name: str) -> None:
    """Add one of mmebm's hooks to a config, unless it has it."""
    hooks = cfg.get('custom_hooks') or []
    if name not in map(type_name, hooks):
        cfg.custom_hooks = [*hooks, dict(type=f'mmebm.{name}')]


def prepare_test(cfg: Config) -> None:
    """Check a test's config.

    Raises:
        FileNotFoundError: The data set's folder or the checkpoint is missing.
        ValueError: The classes differ from those of training, or the checkpoint is not one of the model.
    """
    cfg.resume = False  # A test needs weights alone. To resume, which MAE's config asks for, would read training data.
    adapt_drawing(cfg)
    check_data_roots(cfg, ('test_dataloader',))
    check_classes(cfg, ('test_dataloader',))
    check_channels_of(cfg)
    check_tested(cfg)


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


def how_to_resume(work_dirs: Sequence[Path]) -> str:
    """Where an interrupted run has left its last checkpoint, if it has; its folder is known once it has a config."""
    files = [folder / 'last_checkpoint' for folder in work_dirs]
    checkpoints = [file.read_text().strip() for file in files if file.is_file()]
    return f'{checkpoints[0]} is the last checkpoint; --resume continues from it' if checkpoints else ''


def mend_collate(cfg: Config) -> None:
    """Let the dataloaders collate as their config says."""
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
    """Let a config for GPUs run without one: in float32, with gloo between processes, and without pinned memory."""
    for section in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
        (cfg.get(section) or {}).pop('pin_memory', None)  # torch would warn in every epoch
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
        ddp = dict(
            type='MMDistributedDataParallel',
            device_ids=None,
            broadcast_buffers=False,
            find_unused_parameters=cfg.get('find_unused_parameters', False),  # as the runner's default one
        )
        cfg.setdefault('model_wrapper_cfg', ddp)


def leave_process_group() -> None:
    """Leave the group of processes, if there is one.

    A process whose communication threads still run at exit is sometimes aborted, and its job with it. They run for as
    long as the wrapped model lives, and the runner, which holds it, is part of a reference cycle.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        gc.collect()
        torch.distributed.destroy_process_group()
