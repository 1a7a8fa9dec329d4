"""Checks and completes a config before mmpretrain's script runs it."""

from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import CheckpointHook

from mmebm.engine.resuming.settings import check_complete
from mmebm.launch.checks.auto_scale import check_auto_scale
from mmebm.launch.checks.channels import check_channels_of
from mmebm.launch.checks.classes import check_classes
from mmebm.launch.checks.engines import check_engine_config
from mmebm.launch.checks.memory import check_memory
from mmebm.launch.checks.pretrained import check_load_from, check_pretrained, forget_pretrained
from mmebm.launch.checks.save_best import check_save_best
from mmebm.launch.checks.test_parts import check_test_parts
from mmebm.launch.checks.tested import check_tested
from mmebm.launch.drawing import adapt_drawing
from mmebm.launch.machine import leave_out_amp_options
from mmebm.launch.options import check_data_roots
from mmebm.launch.start import check_readable
from mmebm.model_building import type_name


def prepare_training(cfg: Config) -> None:
    """Check and complete a training's config, before any work is lost on what cannot succeed.

    Raises:
        FileNotFoundError: A data set's folder, or the weights to start or to resume from, are missing.
        ValueError: The engine, the scaling of learning rates, the classes, the weights, the memory, the checkpoint to
            resume from or the figure of the best one do not fit.
    """
    leave_out_amp_options(cfg)
    check_engine_config(cfg)
    check_auto_scale(cfg)
    check_data_roots(cfg, ('train_dataloader', 'val_dataloader', 'custom_hooks'))
    check_classes(cfg, ('train_dataloader', 'val_dataloader'))
    is_resumed = cfg.get('resume') and cfg.get('load_from')
    if is_resumed:
        forget_pretrained(cfg)
    check_pretrained(cfg)
    check_load_from(cfg)
    check_memory(cfg)
    check_channels_of(cfg)
    check_save_best(cfg)
    # In every training, also of configs of mmpretrain, mmseg and mmdet.
    add_hook(cfg, 'BatchOfOneHook')
    add_hook(cfg, 'BrokenImagesHook')
    make_checkpoints_atomic(cfg)
    if type_name((cfg.get('default_hooks') or {}).get('checkpoint') or {}) == 'AtomicCheckpointHook':
        add_hook(cfg, 'PreemptionHook')
    add_hook(cfg, 'ProvenanceHook')
    if is_resumed:
        content = check_readable(cfg.load_from)
        if 'runner_type' not in cfg:  # mmengine's FlexibleRunner resumes by itself
            if '://' not in cfg.load_from and not Path(cfg.load_from).is_dir():
                check_complete(content, cfg.load_from)
            add_hook(cfg, 'ResumeHook')


def prepare_test(cfg: Config) -> None:
    """Check a test's config.

    Raises:
        FileNotFoundError: The data set's folder or the checkpoint is missing.
        ValueError: The config has no test, the classes differ from those of training, or the checkpoint is not one of
            the model.
    """
    cfg.resume = False  # A test needs weights alone. To resume, which MAE's config asks for, would read training data.
    adapt_drawing(cfg)
    check_test_parts(cfg)
    check_data_roots(cfg, ('test_dataloader',))
    check_classes(cfg, ('test_dataloader',))
    check_channels_of(cfg)
    check_tested(cfg)


def make_checkpoints_atomic(cfg: Config) -> None:
    """Replace mmengine's checkpoint hook by the one that writes atomically; a hook of the user's own stays."""
    hooks = cfg.get('default_hooks') or {}
    checkpoint = hooks.get('checkpoint', dict(type='CheckpointHook', interval=1))  # as in mmengine's runner
    if checkpoint is not None and checkpoint.get('type', 'CheckpointHook') in ('CheckpointHook', CheckpointHook):
        cfg.default_hooks = dict(hooks, checkpoint=dict(checkpoint, type='mmebm.AtomicCheckpointHook'))


def add_hook(cfg: Config, name: str) -> None:
    """Add one of mmebm's hooks to a config, unless it has it."""
    hooks = cfg.get('custom_hooks') or []
    if name not in map(type_name, hooks):
        cfg.custom_hooks = [*hooks, dict(type=f'mmebm.{name}')]


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
