"""The settings that a checkpoint was trained with, against those of the run that resumes from it."""

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config

from mmebm.checkpoint import settings
from mmebm.config_tree import differences
from mmebm.error_text import first_few

# What mmengine resumes from. It writes checkpoints of the best score without the optimiser.
PARTS = ('meta', 'state_dict', 'message_hub', 'optimizer')

# What a training is made of; other keys say what is measured, logged and kept.
TRAINING = ('model', 'data_preprocessor', 'train_dataloader', 'train_cfg', 'optim_wrapper', 'param_scheduler',
            'auto_scale_lr', 'randomness')  # fmt: skip

# How a step is computed and how images are loaded changes no result.
FREE = ('model.training_step', 'train_dataloader.num_workers', 'train_dataloader.pin_memory',
        'train_dataloader.persistent_workers', 'train_dataloader.prefetch_factor', 'train_cfg.val_interval',
        'train_cfg.val_begin')  # fmt: skip

# How weights begin, before the checkpoint's replace them.
BEGINNING = {'init_cfg', 'pretrained'}

# What the checkpoint brings along, so that the present setting would be ignored or would not fit.
FIXED = ('model', 'data_preprocessor', 'train_cfg.type', 'train_cfg.by_epoch', 'optim_wrapper.constructor',
         'optim_wrapper.optimizer.type', 'optim_wrapper.optimizer.optimizer_type',
         'train_dataloader.sampler.seed')  # fmt: skip


def new_training(path: str) -> str:
    """How to go on from a checkpoint's weights where its training cannot be resumed."""
    return f'start a new training from its weights, by --cfg-options load_from={path} and another --work-dir'


def check_complete(checkpoint: Any, path: str) -> None:
    """Check that a checkpoint has all that a training resumes from.

    Raises:
        ValueError: It was published, slimmed, saved without the optimiser, or is none of mmengine's.
    """
    found = [*checkpoint] if isinstance(checkpoint, Mapping) else []
    missing = [part for part in PARTS if part not in found]
    if missing:
        raise ValueError(
            f'{path} cannot be resumed from: it has no {", ".join(missing)}, only {first_few(found)}, as a checkpoint '
            'for evaluation, or of the best score. Resume from one that the training saved after an epoch '
            f'(epoch_N.pth), or {new_training(path)}'
        )
    faults = [*_faults(checkpoint)]
    if faults:
        raise ValueError(
            f'{path} cannot be resumed from: {first_few(faults)}. Resume from one that a training of mmengine saved, '
            f'or {new_training(path)}'
        )


def _faults(checkpoint: Mapping[str, Any]) -> Iterator[str]:
    """What is not as mmengine saves it."""
    for part in PARTS:
        if not isinstance(checkpoint[part], Mapping):
            yield f'{part} is a {type(checkpoint[part]).__name__}, no dict'
    meta, optimizer = checkpoint['meta'], checkpoint['optimizer']
    for key in ('epoch', 'iter') if isinstance(meta, Mapping) else ():
        if not isinstance(meta.get(key), int):
            yield f'meta.{key} is {meta.get(key)!r}, no number'
    if isinstance(optimizer, Mapping):
        states = [optimizer] if 'param_groups' in optimizer else [*optimizer.values()]  # of one optimiser, or several
        if not states or not all(isinstance(state, Mapping) and 'param_groups' in state for state in states):
            yield 'optimizer has no param_groups'


def changed_settings(checkpoint: Mapping[str, Any], cfg: Config, path: str) -> dict[str, tuple[Any, Any]]:
    """The settings of a training that differ from a checkpoint's, old and new, by dotted key.

    Args:
        checkpoint: Of mmengine, with the text of its config; without it, nothing is known to differ.
        cfg: The present config.
        path: The checkpoint's file, for the error.

    Raises:
        ValueError: A resumed training cannot change some of them; names the first few.
    """
    meta = checkpoint['meta']
    old, new = settings(meta.get('cfg') or ''), settings(cfg.pretty_text)
    changed = differences(*({key: side[key] for key in TRAINING if key in side} for side in (old, new)))
    changed = {key: pair for key, pair in changed.items() if old and not _is_free(key)}
    fixed = {key: pair for key, pair in changed.items() if _below(key, FIXED)}
    seed = (cfg.get('randomness') or {}).get('seed')
    if None not in (seed, meta.get('seed')) and seed != meta['seed']:
        fixed['randomness.seed'] = (meta['seed'], seed)
    if fixed:
        listed = first_few(f'{key}={new!r} (was {old!r})' for key, (old, new) in fixed.items())
        raise ValueError(
            f'{path} was trained with other settings than the present ones, which a resumed training cannot change: '
            f'{listed}. Set them as they were, or {new_training(path)}'
        )
    return changed


def _is_free(key: str) -> bool:
    return _below(key, FREE) or not BEGINNING.isdisjoint(key.split('.'))


def _below(key: str, prefixes: tuple[str, ...]) -> bool:
    return any(f'{key}.'.startswith(f'{prefix}.') for prefix in prefixes)
