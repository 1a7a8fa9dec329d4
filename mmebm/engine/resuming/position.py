"""Where in its training, and in which folder, a checkpoint was saved."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from mmebm.engine.resuming.data_position import Start, exact_start

NO_SEEDS = 'the training has no EpochSeedHook, which continues within an epoch'

# Entries of the message hub that name files of mmengine's CheckpointHook.
PATHS = ('best_ckpt', 'last_ckpt')


def to_present_epochs(checkpoint: Mapping[str, Any], runner: Runner, path: str) -> bool:
    """Set a checkpoint's position in a training by epoch to one in the present run's iterations, in place.

    A run with another batch, number of processes or of images has another number of iterations per epoch; mmengine
    keeps the number of iterations done. With an ``EpochSeedHook``, an interrupted epoch continues with its next sample;
    otherwise it begins again.

    Args:
        checkpoint: Whose ``meta`` gets the position.
        runner: Of a training by epoch.
        path: The checkpoint's file, for messages.

    Returns:
        Whether the checkpoint's schedule is not at this position: it is another one, or the schedule still had to take
        its step at the end of an epoch.

    Raises:
        ValueError: More epochs are done than the training is to have.
    """
    meta, info = checkpoint['meta'], checkpoint['message_hub'].get('runtime_info', {})
    present = len(runner.train_dataloader)
    length = info.get('max_iters', 0) // max(info.get('max_epochs', 0), 1)
    start, reason = exact_start(checkpoint, runner) if has_hook(runner, 'EpochSeedHook') else (None, NO_SEEDS)
    if start is None:
        start = _epoch_start(meta, length, reason, runner, path)
    if length not in (0, present):
        runner.logger.warning(
            f'An epoch has {present} iterations now, and had {length} in {path}: the batch, the number of processes or '
            f'the data set is another. {start.epoch} epochs count as done'
            + (f', and {start.batches} iterations of the next' if start.batches else '')
        )
    check_length(start.epoch, 'max_epochs', runner, path)
    before = meta['epoch'], meta['iter']
    meta.update(epoch=start.epoch, iter=start.epoch * present + start.batches)
    return before != (meta['epoch'], meta['iter'])


def has_hook(runner: Runner, name: str) -> bool:
    """Whether a run has a hook of this class."""
    return any(type(hook).__name__ == name for hook in runner.hooks)


def _epoch_start(meta: Mapping[str, Any], length: int, reason: str, runner: Runner, path: str) -> Start:
    """The start of the epoch that a checkpoint is from."""
    epoch, rest = divmod(meta['iter'], length) if length else (meta['epoch'], 0)
    if rest:
        runner.logger.warning(
            f'{path} is from the middle of epoch {epoch + 1}, after {rest} of its {length} iterations: this epoch '
            f'begins again, from these weights, since {reason}'
        )
    return Start(epoch)


def check_length(done: int, key: str, runner: Runner, path: str) -> None:
    """Check that a training goes on behind its checkpoint; a warning says if it is just finished.

    Args:
        done: Epochs or iterations.
        key: ``max_epochs`` or ``max_iters``.
        runner: Of the training.
        path: The checkpoint's file, for messages.

    Raises:
        ValueError: More is done than the training is to have.
    """
    length, unit = getattr(runner, key), dict(max_epochs='epochs', max_iters='iterations')[key]
    if done > length:
        raise ValueError(
            f'{path} has {done} {unit} done, more than train_cfg.{key}={length}: there is nothing to train. Set a '
            f'larger {key}'
        )
    if done == length:
        runner.logger.warning(
            f'{path} has all {done} {unit} of the training done: nothing is trained. To go on, set a larger '
            f'train_cfg.{key}'
        )


def own_paths(checkpoint: Mapping[str, Any], runner: Runner) -> None:
    """Let a checkpoint name files of the present run's folder only, in place.

    The best checkpoint so far is removed when a better one is saved: in a copied folder, that of the original.
    """
    hub = checkpoint['message_hub']
    info, resumed_keys = hub.get('runtime_info', {}), hub.get('resumed_keys', {})
    hook = next((hook for hook in runner.hooks if isinstance(hook, CheckpointHook)), None)
    folder = Path(runner.work_dir)
    if hook is not None and hook.out_dir not in (None, runner.work_dir):
        folder = Path(hook.out_dir) / folder.name  # as mmengine does before the training
    for key in [key for key in info if key.startswith(PATHS)]:
        own = folder / Path(str(info[key])).name
        if own.is_file():
            info[key] = str(own)
        else:
            del info[key]
            resumed_keys.pop(key, None)
