"""What hooks share that measure at intervals during a training."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.option_check import check_whole_numbers


@idle_in_dry_runs
class MeasuringHook(Hook):
    """Measures every ``interval`` epochs or iterations, and at the end; subclasses define ``_measure_and_log``.

    Args:
        interval: Epochs, or iterations, between two measurements.
        by_epoch: Whether ``interval`` counts epochs; otherwise iterations.

    Raises:
        ValueError: ``interval`` is less than 1.
    """

    def __init__(self, interval: int, by_epoch: bool) -> None:
        check_whole_numbers(type(self).__name__, interval=interval)
        self.interval = interval
        self.by_epoch = by_epoch

    def after_train_epoch(self, runner: Runner) -> None:
        """Measures every ``interval`` epochs, and after the last one."""
        if self.by_epoch and (self.every_n_epochs(runner, self.interval) or self.is_last_train_epoch(runner)):
            self._measure_and_log(runner, step=runner.epoch + 1)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Measures every ``interval`` iterations, and after the last one."""
        if not self.by_epoch and (
            self.every_n_train_iters(runner, self.interval) or runner.iter + 1 == runner.max_iters
        ):
            self._measure_and_log(runner, step=runner.iter + 1)

    def _measure_and_log(self, runner: Runner, step: int) -> None:
        raise NotImplementedError
