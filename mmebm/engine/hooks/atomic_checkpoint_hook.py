"""Checkpoints that survive a kill at any moment, and that are also written by time."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, get_file_backend
from mmengine.hooks import CheckpointHook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmebm.engine.resuming.agreement import Agreement
from mmebm.output_files import partial_file, write_atomically
from mmebm.registry import HOOKS

# Entries of the message hub, which checkpoints hold: files that the next checkpoint makes superfluous.
OBSOLETE = 'obsolete_checkpoints'
INTERIM = 'interim_checkpoint'


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, which never has less than one whole checkpoint once there was one.

    A checkpoint is serialised in memory, written to a hidden file beside its place, synced to the disk and renamed;
    only then older ones are removed, those of the best score too. ``last_checkpoint`` is replaced in the same way. A
    full disk ends the run with a message, and leaves the checkpoint before. This holds for local disks; other file
    backends write as mmengine does, and DeepSpeed writes its folders by itself.

    Args:
        every_minutes: Also save after so many minutes without a checkpoint, in the middle of an epoch, as
            ``iter_N.pth``, which the next checkpoint replaces. None: never.
        **kwargs: The options of mmengine's hook.

    Raises:
        ValueError: ``every_minutes`` is not positive, or ``interval``, ``max_keep_ckpts`` or ``save_begin`` no whole
            number.
    """

    def __init__(self, every_minutes: float | None = None, **kwargs: Any):
        is_number = isinstance(every_minutes, (int, float))
        if every_minutes is not None and not (is_number and every_minutes > 0):
            raise ValueError(f'AtomicCheckpointHook: every_minutes must be positive or None, not {every_minutes!r}')
        for name in ('interval', 'max_keep_ckpts', 'save_begin'):  # mmengine would fail at the first checkpoint
            if name in kwargs and not isinstance(kwargs[name], int):
                raise ValueError(f'AtomicCheckpointHook: {name} must be a whole number, not {kwargs[name]!r}')
        super().__init__(**kwargs)
        self.every_minutes = every_minutes
        self._saved_iter = 0
        self._saved_at = time.monotonic()

    def before_train(self, runner: Runner) -> None:
        """Choose the file backend, and remove what a killed run has left."""
        local = isinstance(get_file_backend(self.out_dir or runner.work_dir), LocalBackend)
        if self.backend_args is None and self.file_client_args is None and local:
            self.backend_args = dict(backend='mmebm.atomic')
        super().before_train(runner)
        self._obsolete: list[str] = []
        info = runner.message_hub.runtime_info
        if is_main_process():
            for name in info.get(OBSOLETE, []):
                self._remove(name)
            if local and Path(self.out_dir).is_dir():
                for path in Path(self.out_dir).glob(partial_file(Path('*.pth')).name):
                    path.unlink(missing_ok=True)
        self._saved_iter, self._saved_at = runner.iter, time.monotonic()
        self._due = Agreement() if self.every_minutes is not None else None

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Save by iterations, as mmengine does, and by time."""
        super().after_train_iter(runner, batch_idx, data_batch, outputs)
        if self.every_minutes is not None:
            is_due = time.monotonic() - self._saved_at >= 60 * self.every_minutes
            if self._due.ask(is_due) and can_save(runner, batch_idx):
                runner.logger.info(f'Saving checkpoint after {self.every_minutes:g} minutes without one')
                self.save_interim(runner, dict(epoch=runner.epoch, iter=runner.iter + 1))

    def save_interim(self, runner: Runner, meta: dict[str, int]) -> str:
        """Save a checkpoint that the next one replaces; every process calls it.

        Nothing is saved if there is one of this iteration, or if a weight is not finite.

        Args:
            runner: The runner.
            meta: ``epoch`` and ``iter``, the numbers of finished epochs and iterations.

        Returns:
            The file of the last checkpoint.
        """
        if meta['iter'] != self._saved_iter and is_finite(runner):
            name = f'iter_{meta["iter"]}.pth'
            self._write(runner, name, meta, by_epoch=False, interim=name)
        return str(self.last_ckpt or runner._load_from)

    def _save_checkpoint(self, runner: Runner) -> None:
        if self.by_epoch or has_just_updated(runner):
            super()._save_checkpoint(runner)
        else:
            runner.logger.warning(
                f'No checkpoint at {runner.iter + 1} iterations, amid accumulated batches: their gradients would be '
                'lost. Let the interval be a multiple of optim_wrapper.accumulative_counts'
            )

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, int]) -> None:
        kept = getattr(self, 'keep_ckpt_ids', None)
        if kept is not None and (not kept or kept[-1] != step):
            if len(kept) == self.max_keep_ckpts:
                self._obsolete.append(self.filename_tmpl.format(kept.popleft()))
            kept.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(kept))
        self._write(runner, self.filename_tmpl.format(step), meta, by_epoch=self.by_epoch)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        backend, self.file_backend = self.file_backend, _RemovesLater(self.file_backend, self._obsolete)
        try:
            with _explained(self, runner):
                super()._save_best_checkpoint(runner, metrics)
        finally:
            self.file_backend = backend
        self._spare_best()
        self._remove_obsolete()

    def _write(
        self, runner: Runner, name: str, meta: dict[str, int], by_epoch: bool, interim: str | None = None
    ) -> None:
        """Write a checkpoint and its name, then remove the files that it replaces."""
        self._spare_best()
        hub = runner.message_hub
        before = hub.runtime_info.get(INTERIM)
        if before not in (None, name):
            self._obsolete.append(before)
        hub.update_info(INTERIM, interim)
        hub.update_info(OBSOLETE, [*self._obsolete])
        last = self.file_backend.join_path(self.out_dir, name)
        hub.update_info('last_ckpt', last)
        iteration = meta['iter']
        with _explained(self, runner):
            runner.save_checkpoint(
                self.out_dir,
                name,
                self.file_client_args,
                save_optimizer=self.save_optimizer,
                save_param_scheduler=self.save_param_scheduler,
                meta=meta,
                by_epoch=by_epoch,
                backend_args=self.backend_args,
                **self.args,
            )
            if is_main_process():
                write_atomically(Path(runner.work_dir, 'last_checkpoint'), str(last).encode())
        self.last_ckpt, self._saved_iter, self._saved_at = last, iteration, time.monotonic()
        if self._due is not None:
            self._due.reset()
        if not isinstance(self.file_backend, _RemovesLater):
            self._remove_obsolete()

    def _spare_best(self) -> None:
        """Keep the best checkpoint where it has the name of the one before, as in training by iterations."""
        paths = [getattr(self, 'best_ckpt_path', None), *getattr(self, 'best_ckpt_path_dict', {}).values()]
        best = {Path(path).name for path in paths if path}
        self._obsolete[:] = [name for name in self._obsolete if name not in best]

    def _remove_obsolete(self) -> None:
        while self._obsolete:
            name = self._obsolete.pop()
            if is_main_process():
                self._remove(name)

    def _remove(self, name: str) -> None:
        """Remove a file of this run's folder, or a folder that DeepSpeed wrote."""
        path = self.file_backend.join_path(self.out_dir, Path(name).name)
        if self.file_backend.isfile(path):
            self.file_backend.remove(path)
        elif self.file_backend.isdir(path):
            self.file_backend.rmtree(path)


class _RemovesLater:
    """A file backend that only notes what to remove."""

    def __init__(self, backend: Any, notes: list[str]):
        self._backend, self._notes = backend, notes

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def remove(self, path: str) -> None:
        self._notes.append(Path(path).name)

    rmtree = remove


class CheckpointNotWrittenError(OSError):
    """A disk is full or cannot be written to; what was on it is untouched."""


@contextmanager
def _explained(hook: CheckpointHook, runner: Runner) -> Iterator[None]:
    """Context in which an error of writing says what could not be written, and what is left."""
    try:
        yield
    except CheckpointNotWrittenError:
        raise
    except OSError as error:
        left = hook.last_ckpt or runner._load_from
        raise CheckpointNotWrittenError(
            error.errno,
            f'No checkpoint could be written to {hook.out_dir} after {runner.iter} iterations: {error.strerror}. '
            f'Nothing was removed; the last whole checkpoint is {left or "none yet"}. Make room '
            '(default_hooks.checkpoint.max_keep_ckpts keeps fewer of them), then continue by --resume',
        ) from error


def is_finite(runner: Runner) -> bool:
    """Whether all weights are finite; a warning says that nothing is saved if not."""
    broken = [name for name, value in runner.model.named_parameters() if not value.isfinite().all()]
    if broken:
        runner.logger.warning(f'No checkpoint after {runner.iter} iterations: {broken[0]} is not finite')
    return not broken


def has_just_updated(runner: Runner) -> bool:
    """Whether the iteration that ends has changed the weights, so that no accumulated gradient is pending."""
    wrapper = runner.optim_wrapper
    return not isinstance(wrapper, OptimWrapper) or wrapper.should_update()


def can_save(runner: Runner, batch_idx: int) -> bool:
    """Whether a checkpoint now is exact: neither a gradient nor a step of a schedule by epoch is pending."""
    by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
    return has_just_updated(runner) and not (by_epoch and batch_idx + 1 == len(runner.train_dataloader))
