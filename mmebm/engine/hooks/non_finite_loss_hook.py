"""Stop at the first loss that is not a finite number."""

import math

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.registry import HOOKS


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Stop training when a loss is nan or infinite, before anything broken is logged or saved.

    Each process checks its own losses; the one that raises ends a distributed job through its launcher.

    Raises:
        FloatingPointError: (after the iteration) with the loss, the images of the batch, the last checkpoint and
            what to try.
    """

    priority = 'HIGH'  # after RuntimeInfoHook, whose values it reads; before LoggerHook, EMAHook and CheckpointHook

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Check every output whose name contains ``loss``."""
        # RuntimeInfoHook has just copied the outputs to the host; its copies cost no second synchronisation.
        names = [name for name in outputs or {} if 'loss' in name]
        values = {name: runner.message_hub.get_scalar(f'train/{name}').current() for name in names}
        broken = {name: value for name, value in values.items() if not math.isfinite(value)}
        if not broken:
            return
        losses = ', '.join(f'{name} = {value}' for name, value in broken.items())
        raise FloatingPointError(
            f'The loss is not finite: {losses} in epoch {runner.epoch + 1}, iteration {runner.iter + 1}.\n'
            f'Images of the batch: {_first_paths(data_batch)}.\n'
            f'Last checkpoint: {runner.message_hub.get_info("last_ckpt", "none written yet")}.\n'
            'What helps, most often first: a lower learning rate or step_size, gradient clipping '
            '(`optim_wrapper.clip_grad=dict(max_norm=1.0)`), bfloat16 instead of float16.'
        )


def _first_paths(data_batch: dict | None, count: int = 4) -> str:
    samples = data_batch.get('data_samples') if isinstance(data_batch, dict) else None
    paths = [sample.get('img_path') for sample in samples or []]
    paths = [path for path in paths if path]
    if not paths:
        return 'not known (no `img_path` in the data samples)'
    more = f' and {len(paths) - count} more' if len(paths) > count else ''
    return ', '.join(paths[:count]) + more
