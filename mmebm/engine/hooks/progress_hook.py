"""A progress bar for interactive terminals."""

import logging
import sys
import time
import weakref

from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.registry import HOOKS

REFRESH_SECONDS = 0.5


@HOOKS.register_module()
@idle_in_dry_runs
class ProgressHook(Hook):
    """Show a bar over all training iterations: epoch, loss (mean of the last ten), images per second, time left.

    Only the main process shows it, and only on a terminal; log files and pipes are not affected.
    """

    priority = 'LOW'

    def __init__(self) -> None:
        self._progress: Progress | None = None

    def before_train(self, runner: Runner) -> None:
        """Start the bar, at the iteration that a resumed run has reached."""
        if not is_main_process() or not sys.stdout.isatty():
            return
        # No refresh thread: a data loading worker forked while that thread holds its lock would hang at its first log.
        self._progress = Progress(
            TextColumn('epoch {task.fields[epoch]}'),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn('loss {task.fields[loss]}'),
            _ImagesPerSecond(),
            TimeRemainingColumn(),
            console=Console(),
            auto_refresh=False,
            speed_estimate_period=300,  # seconds
        )
        images = runner.train_dataloader.batch_sampler.batch_size * get_world_size()
        self._task = self._progress.add_task(
            '', total=runner.max_iters, completed=runner.iter, epoch=runner.epoch + 1, loss='-', images=images
        )
        stdout = sys.stdout
        self._progress.start()
        # rich now prints output to sys.stdout above the bar, but log handlers hold the stream they were created with.
        handlers = [
            handler
            for handler in runner.logger.handlers
            if isinstance(handler, logging.StreamHandler) and handler.stream is stdout
        ]
        for handler in handlers:
            handler.setStream(sys.stdout)
        # The runner calls no hook when training fails; this runs at the latest when Python ends.
        self._stop = weakref.finalize(self, _stop, self._progress, handlers, stdout)
        self._next_refresh = 0.0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Advance the bar."""
        if self._progress is None:
            return
        refresh = time.monotonic() >= self._next_refresh
        if refresh:
            self._next_refresh = time.monotonic() + REFRESH_SECONDS
        losses = runner.message_hub.log_scalars.get('train/loss')  # on the host already, see RuntimeInfoHook
        loss = '-' if losses is None else f'{losses.mean(10):.4g}'  # none where all steps so far were skipped
        self._progress.update(self._task, completed=runner.iter + 1, epoch=runner.epoch + 1, loss=loss, refresh=refresh)

    def after_train(self, runner: Runner) -> None:
        """Leave the finished bar on the screen and restore the streams."""
        if self._progress is not None:
            self._stop()
            self._progress = None


class _ImagesPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.speed  # iterations per second
        return Text('- images/s' if speed is None else f'{speed * task.fields["images"]:.0f} images/s')


def _stop(progress: Progress, handlers: list[logging.StreamHandler], stdout) -> None:
    for handler in handlers:
        handler.setStream(stdout)
    progress.stop()
