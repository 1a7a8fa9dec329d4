"""Logs how much CPU time the training steps take."""

import resource
import time
from collections.abc import Sequence

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class CPUTimeHook(Hook):
    """Logs the CPU seconds of every training step, as mmengine's ``IterTimerHook`` logs those of the clock.

    ``train/cpu_time`` has one value per step: all threads of the process, and the processes that ended within the step.
    ``train/worker_cpu_time`` has one per epoch: the workers that loaded its data, which end with the epoch. Persistent
    workers and the compiler's own workers end with the training, so that they are not counted. It has a NaN for workers
    that ended with an interrupted process, within an epoch, and so were not measured.
    """

    def before_train_epoch(self, runner: Runner) -> None:
        """Start to count."""
        self.start = cpu_time()
        loader = runner.train_dataloader
        if runner.iter % len(loader) and loader.num_workers:
            runner.message_hub.update_scalar('train/worker_cpu_time', float('nan'))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Log the step."""
        self._log(runner, 'train/cpu_time')

    def after_train_epoch(self, runner: Runner) -> None:
        """Log the workers."""
        self._log(runner, 'train/worker_cpu_time')

    def _log(self, runner: Runner, name: str) -> None:
        now = cpu_time()
        runner.message_hub.update_scalar(name, now - self.start)
        self.start = now


def cpu_time() -> float:
    """CPU seconds of all threads of this process, and of its child processes that have ended."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime
