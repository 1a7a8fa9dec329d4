"""Skips training steps whose loss or gradient is not finite."""

import math
from pathlib import Path
from typing import Any, Literal

from mmengine.dist import get_rank
from mmengine.hooks import CheckpointHook, EMAHook, Hook
from mmengine.runner import Runner
from torch import Tensor

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.faulty_steps.capture import paths_of, save_capture
from mmebm.engine.faulty_steps.guard import Fault, StepGuard
from mmebm.engine.faulty_steps.rollback import last_checkpoint, roll_back
from mmebm.engine.faulty_steps.spikes import Spikes
from mmebm.error_text import counted, first_few
from mmebm.model_building import unwrapped
from mmebm.option_check import check_whole_numbers
from mmebm.registry import HOOKS

# How often a training goes back before it stops.
MAX_ROLLBACKS = 3

CAPTURES = 'captures'
SKIPPED = 'skipped_steps'
KEY = 'non_finite_loss_hook'


@HOOKS.register_module()
@idle_in_dry_runs
class NonFiniteLossHook(Hook):
    """Skip steps whose loss or gradient is NaN or infinite: weights, buffers and optimiser stay as they were.

    All processes skip alike. Skipped steps are counted, their losses are not logged, and ``WORK_DIR/captures`` holds
    the first ones, which ``tools/replay.py`` runs again. With loss scaling, gradients that overflow are the scaler's
    own business. With accumulated gradients, the step of all their batches is skipped. Optimisers that mmengine does
    not step itself (several of them, DeepSpeed) cannot be held back: training stops at the first loss that is not
    finite. Weights are checked too whenever a checkpoint is due, which may replace a valid one.

    Args:
        max_in_a_row: Skipped steps in a row after which the training does not go on like this.
        then: ``'stop'``; or ``'roll_back'`` to weights and optimiser of the last checkpoint (up to three times), and go
            on with the next batch.
        lr_factor: What the learning rate is multiplied by when rolling back.
        spike_sigmas: Also skip steps whose loss or norm of gradients is as many standard deviations above the mean of
            the last 128; None: do not.
        max_captures: How many skipped steps each process keeps a file of, with all weights.

    Raises:
        ValueError: An option is out of range; or (before training) rolling back or ``spike_sigmas`` is asked for with
            an optimiser that cannot be held back, or rolling back with ``EMAHook``.
        FloatingPointError: (after the iteration) Too many in a row; the message lists the loss, the images of the
            batch, the last checkpoint and remedies; (when a checkpoint is due) the weights instead.
    """

    priority = 'HIGHEST'  # before RuntimeInfoHook, which would log the losses

    def __init__(
        self,
        max_in_a_row: int = 5,
        then: Literal['stop', 'roll_back'] = 'stop',
        lr_factor: float = 0.5,
        spike_sigmas: float | None = None,
        max_captures: int = 3,
    ) -> None:
        check_whole_numbers('NonFiniteLossHook', max_in_a_row=max_in_a_row)
        check_whole_numbers('NonFiniteLossHook', least=0, max_captures=max_captures)
        if then not in ('stop', 'roll_back'):
            raise ValueError(f"NonFiniteLossHook: then must be 'stop' or 'roll_back', not {then!r}")
        if not 0 < lr_factor <= 1:
            raise ValueError(f'NonFiniteLossHook: lr_factor must be above 0 and at most 1, not {lr_factor!r}')
        if spike_sigmas is not None and not spike_sigmas > 0:
            raise ValueError(f'NonFiniteLossHook: spike_sigmas must be a positive number or None, not {spike_sigmas!r}')
        self.max_in_a_row = max_in_a_row
        self.then = then
        self.lr_factor = lr_factor
        self.max_captures = max_captures
        self.spikes = None if spike_sigmas is None else (Spikes(spike_sigmas), Spikes(spike_sigmas))
        self.guard: StepGuard | None = None
        self._in_a_row = self._rollbacks = self._captures = 0

    def before_train(self, runner: Runner) -> None:
        """Stand before the optimiser."""
        if StepGuard.can_guard(runner.optim_wrapper):
            self.guard = StepGuard(runner.optim_wrapper, runner.model, *(self.spikes or (None, None)))
        elif self.spikes or self.then == 'roll_back':
            raise ValueError(
                f'NonFiniteLossHook: steps of a {type(runner.optim_wrapper).__name__} cannot be skipped; leave out '
                "spike_sigmas and then='roll_back'"
            )
        if self.then == 'roll_back' and any(isinstance(hook, EMAHook) for hook in runner.hooks):
            raise ValueError("NonFiniteLossHook: then='roll_back' would leave the averages of EMAHook; use then='stop'")
        writers = [hook for hook in runner.hooks if isinstance(hook, CheckpointHook)]
        if self.then == 'roll_back' and not all(hook.save_optimizer for hook in writers):
            raise ValueError(
                "NonFiniteLossHook: then='roll_back' needs the optimiser's state in checkpoints; leave out "
                "default_hooks.checkpoint.save_optimizer=False, or use then='stop'"
            )

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Remember the batch."""
        if self.guard:
            self.guard.begin(data_batch)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Report a skipped step; check the weights if they are saved by iteration."""
        fault = self.guard.fault if self.guard else _fault_of(outputs or {}, data_batch)
        if fault and fault.batch is data_batch:
            fault.losses = _losses(outputs or {})
        if self.guard and fault:  # of this batch or of one that is accumulated with it
            for name in [name for name, value in (outputs or {}).items() if not math.isfinite(_number(value))]:
                del outputs[name]  # before it is logged
        if self.guard and not self.guard.is_skipped:
            self._in_a_row = 0 if self.guard.has_stepped else self._in_a_row
            if any(_saves_now(hook, runner) for hook in runner.hooks):
                _check_weights(runner, runner.iter + 1)
        elif self.guard or fault:
            self._on_skipped(runner, fault)

    def after_train_epoch(self, runner: Runner) -> None:
        """Check the weights."""
        _check_weights(runner, runner.iter)

    def after_train(self, runner: Runner) -> None:
        """Say how many steps were skipped, and let go of the optimiser."""
        if skipped := runner.message_hub.get_info(SKIPPED, 0):
            runner.logger.warning(f'The training has skipped {counted(skipped, "step")}')
        if self.guard:
            self.guard.release()

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Save the last values that spikes are measured against."""
        if self.spikes:
            checkpoint[KEY] = [spikes.values for spikes in self.spikes]

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take them from a checkpoint to resume from."""
        if self.spikes and runner._resume:
            for spikes, values in zip(self.spikes, checkpoint.get(KEY, ([], [])), strict=True):
                spikes.values = [*values]

    def _on_skipped(self, runner: Runner, fault: Fault | None) -> None:
        self._in_a_row += 1
        skipped = runner.message_hub.get_info(SKIPPED, 0) + 1
        runner.message_hub.update_info(SKIPPED, skipped)
        place = f'epoch {runner.epoch + 1}, iteration {runner.iter + 1}'
        what = _described(fault)
        if self.guard is None:
            raise FloatingPointError(f'{what} in {place}.\n{_images(fault)}\n{_advice(runner)}')
        capture = self._capture(runner, fault)
        if self._in_a_row < self.max_in_a_row and not _broken_weights(runner):
            runner.logger.warning(f'Skipped a step ({skipped} so far): {what} in {place}. {_images(fault)}{capture}')
            return
        in_a_row, self._in_a_row = self._in_a_row, 0
        path = last_checkpoint(runner) if self.then == 'roll_back' and self._rollbacks < MAX_ROLLBACKS else None
        if path is None:
            count = f' ({in_a_row} steps in a row)' if in_a_row > 1 else ''
            raise FloatingPointError(f'{what} in {place}{count}.\n{_images(fault)}{capture}\n{_advice(runner)}')
        self._rollbacks += 1
        roll_back(runner, path, self.lr_factor)
        runner.logger.warning(
            f'{what} in {place}, after {in_a_row} in a row. {_images(fault)}{capture} Back to weights '
            f'and optimiser of {path}; learning rates are multiplied by {self.lr_factor:g} ({self._rollbacks} of '
            f'{MAX_ROLLBACKS} times)'
        )

    def _capture(self, runner: Runner, fault: Fault | None) -> str:
        """Write a capture; where it is, in words."""
        if fault is None or self._captures >= self.max_captures:
            return ''
        self._captures += 1
        rank = get_rank()
        path = Path(runner.work_dir, CAPTURES, f'iter_{runner.iter + 1}_rank_{rank}.pth')
        place = dict(epoch=runner.epoch + 1, iteration=runner.iter + 1, rank=rank)
        try:
            save_capture(path, fault, unwrapped(runner.model), runner.cfg, place)
        except OSError as error:  # a full disk
            return f' It could not be captured: {error}.'
        return f' To run it again: tools/replay.py {path}.'


def _fault_of(outputs: dict, batch: Any) -> Fault | None:
    losses = _losses(outputs)
    return None if all(map(math.isfinite, losses.values())) else Fault('the loss is not finite', 1, batch, {}, losses)


def _losses(outputs: dict) -> dict[str, float]:
    return {name: _number(value) for name, value in outputs.items() if 'loss' in name}


def _number(value: Any) -> float:
    return float(value.detach().float().mean()) if isinstance(value, Tensor) else float(value)


def _described(fault: Fault | None) -> str:
    if fault is None:
        return 'A batch of another process is faulty'
    broken = [f'{name} = {value}' for name, value in fault.losses.items() if not math.isfinite(value)]
    return f'The loss is not finite: {", ".join(broken)}' if broken else f'{fault.text[0].upper()}{fault.text[1:]}'


def _images(fault: Fault | None) -> str:
    paths = first_few(paths_of(fault.batch)) if fault else ''
    return f'Images of the batch: {paths or "not known (no `img_path` in the data samples)"}.'


def _saves_now(hook: Hook, runner: Runner) -> bool:
    by_iteration = isinstance(hook, CheckpointHook) and not hook.by_epoch
    return by_iteration and (hook.every_n_train_iters(runner, hook.interval) or hook.is_last_train_iter(runner))


def _broken_weights(runner: Runner) -> list[str]:
    """Names of weights that are not finite: no step would be."""
    return [name for name, value in runner.model.named_parameters() if not value.isfinite().all()]


def _check_weights(runner: Runner, iteration: int) -> None:
    if broken := _broken_weights(runner):
        raise FloatingPointError(
            f'Weights are not finite after iteration {iteration}, though the losses seen here were: '
            f'{first_few(broken)}.\n{_advice(runner)}'
        )


def _advice(runner: Runner) -> str:
    return (
        f'Last checkpoint: {runner.message_hub.get_info("last_ckpt", "none written yet")}.\n'
        'What helps, most often first: a lower learning rate or step_size, gradient clipping '
        '(`optim_wrapper.clip_grad=dict(max_norm=1.0)`), bfloat16 instead of float16.'
    )
