"""Ends a training whose machine is taken back, with a checkpoint and an exit code that asks to be started again."""

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.hooks.atomic_checkpoint_hook import AtomicCheckpointHook, can_save
from mmebm.engine.resuming.agreement import Agreement
from mmebm.engine.resuming.stop_signals import REQUEUE, STOP, IgnoresSignals
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class PreemptionHook(Hook):
    """On SIGTERM or SIGUSR1 to any process: a checkpoint, then exit code 75 of all processes.

    Looked at after every iteration, also of the validation; with several processes, all stop one iteration later, at
    the same one. With accumulated gradients, the checkpoint waits for the next update. Before the first iteration is
    done, which may include minutes of compiling, a signal ends the process at once: the last checkpoint is on the disk.
    Workers of the training's and the validation's loader ignore the signals.

    ``tools/train.py`` adds this hook and catches the signals; elsewhere, enclose the training in
    ``mmebm.engine.resuming.stop_signals.catching_signals()``.

    Raises:
        ValueError: The checkpoint hook is not ``AtomicCheckpointHook``.
        SystemExit: (after the checkpoint) With code 75.
    """

    priority = 'LOWEST'  # after a checkpoint that is due anyway

    def before_train(self, runner: Runner) -> None:
        """Find the checkpoint hook, and protect the workers."""
        found = [hook for hook in runner.hooks if isinstance(hook, AtomicCheckpointHook)]
        if not found:
            raise ValueError(
                'PreemptionHook saves by mmebm.AtomicCheckpointHook, which this config lacks: set '
                "default_hooks.checkpoint.type='mmebm.AtomicCheckpointHook', or remove the hook"
            )
        self._checkpoints, self._stop = found[0], Agreement()
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loop.dataloader.worker_init_fn = IgnoresSignals(loop.dataloader.worker_init_fn)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop if any process was told to."""
        STOP.nothing_to_save = False
        if self._stop.ask(STOP.received is not None) and can_save(runner, batch_idx):
            self._save_and_exit(runner, epoch=runner.epoch, iteration=runner.iter + 1)

    def after_train_epoch(self, runner: Runner) -> None:
        """The same at the end of an epoch, after the schedule's step."""
        by_iteration = isinstance(runner.train_loop, IterBasedTrainLoop)
        if not by_iteration and self._stop.ask(STOP.received is not None):
            self._save_and_exit(runner, epoch=runner.epoch + 1, iteration=runner.iter)

    def before_val_epoch(self, runner: Runner) -> None:
        """Find how many batches of the validation all processes have."""
        self._common = self._stop.least(len(runner.val_dataloader)) if hasattr(self, '_stop') else 0

    def after_val_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Stop if any process was told to; the resumed run goes on behind this validation."""
        if batch_idx < self._common and self._stop.ask(STOP.received is not None):
            self._save_and_exit(runner, epoch=runner.epoch, iteration=runner.iter)

    def _save_and_exit(self, runner: Runner, epoch: int, iteration: int) -> None:
        path = self._checkpoints.save_interim(runner, dict(epoch=epoch, iter=iteration))
        runner.logger.warning(
            f'{STOP.received or "A signal to another process"}: stopped after {iteration} iterations, saved {path}. '
            f'--resume continues; the exit code is {REQUEUE}'
        )
        self._stop.least(0)  # rank 0 has written: a launcher kills the others once one has ended
        raise SystemExit(REQUEUE)
