"""Stops at the first loss or weight that is not finite."""

import math

from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner

from mmebm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop training when a loss is NaN or infinite, before it is logged or saved.

    Each process checks its own losses; the one that raises ends a distributed job through its launcher. A finite loss
    may have a non-finite gradient, and losses of other processes are not seen, so weights are checked too whenever a
    checkpoint is due, which may replace a valid one.

    Raises:
        FloatingPointError: (after the iteration) The message lists the loss, the images of the batch, the last
            checkpoint and remedies; (when a checkpoint is due) the weights instead.
    """

    priority = 'HIGH'  # after RuntimeInfoHook, whose values it reads; before LoggerHook, EMAHook and CheckpointHook

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Check every output whose name contains ``loss``; and the weights, if they are saved by iteration."""
        # RuntimeInfoHook has just copied the outputs to the host; reading its copies needs no second synchronisation.
        names = [name for name in outputs or {} if 'loss' in name]
        values = {name: runner.message_hub.get_scalar(f'train/{name}').current() for name in names}
        broken = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not broken:
            if any(_saves_now(hook, runner) for hook in runner.hooks):
                _check_weights(runner, runner.iter + 1)
            return
        losses = ', '.join(f'{name} = {value}' for name, value in broken.items())
        raise FloatingPointError(
            f'The loss is not finite: {losses} in epoch {runner.epoch + 1}, iteration {runner.iter + 1}.\n'
            f'Images of the batch: {_first_paths(data_batch)}.\n{_advice(runner)}'
        )

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the weights."""
        _check_weights(runner, runner.iter)


def _saves_now(hook: Hook, runner: Runner) -> bool:
    by_iteration = isinstance(hook, CheckpointHook) and not hook.by_epoch
    return by_iteration and (hook.every_n_train_iters(runner, hook.interval) or hook.is_last_train_iter(runner))


def _check_weights(runner: Runner, iteration: int) -> None:
    broken = [name for name, value in runner.model.named_parameters() if not value.isfinite().all()]
    if broken:
        raise FloatingPointError(
            f'Weights are not finite after iteration {iteration}, though the losses seen here were: '
            f'{_first(broken)}.\n{_advice(runner)}'
        )


def _advice(runner: Runner) -> str:
    return (
        f'Last checkpoint: {runner.message_hub.get_info("last_ckpt", "none written yet")}.\n'
        'What helps, most often first: a lower learning rate or step_size, gradient clipping '
        '(`optim_wrapper.clip_grad=dict(max_norm=1.0)`), bfloat16 instead of float16.'
    )


def _first_paths(data_batch: dict | None) -> str:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    paths = [sample.get('img_path') for sample in samples or []]
    return _first([path for path in paths if path]) or 'not known (no `img_path` in the data samples)'


def _first(names: list[str], count: int = 4) -> str:
    more = f' and {len(names) - count} more' if len(names) > count else ''
    return ', '.join(names[:count]) + more
