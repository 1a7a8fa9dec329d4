"""Random numbers and an order of samples that a resumed run continues where the killed one was."""

from typing import Any

from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner
from torch.utils.data import IterableDataset

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.resuming.data_position import KEY, DataPosition, Start, exact_start, start_after
from mmebm.engine.resuming.draws import SeededItems, seed_model
from mmebm.engine.resuming.position import has_hook
from mmebm.engine.resuming.stream import EndlessBatches, Stream
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class EpochSeedHook(Hook):
    """Seed each sample from (seed, epoch, index), each step of the model from (seed, iteration, rank).

    Checkpoints get the place in the data, and a resumed run begins with the next sample, in the middle of an epoch too;
    no sample is read to be skipped. With the same number of processes it ends in the weights of an uninterrupted run,
    bit by bit. With another number, samples have the same order and the same draws; batches, and the model's own draws,
    are those of the present number. Workers, their number and persistence have no influence.

    In training by epoch with ``accumulative_counts``, the last update of an epoch uses the remaining batches, since
    gradients accumulated but not applied at a checkpoint would be lost.
    It also fixes two problems of mmengine: it seeds workers with the same numbers in every epoch, so each epoch draws
    the same augmentations; and a sampler whose seed is not in the config gets a new one when resumed.

    Raises:
        ValueError: The loader makes no batches of indices, as one of an iterable data set.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._start = Start()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Find the place in the data, and let mmengine's loop by epochs begin there."""
        if not runner._resume:
            return
        start, note = exact_start(checkpoint, runner)
        by_epoch = not isinstance(runner.train_loop, IterBasedTrainLoop)
        if start is not None:
            self._start = start
            if by_epoch and not has_hook(runner, 'ResumeHook'):  # which does the same, and compares the schedule
                length = len(runner.train_dataloader)
                checkpoint['meta'].update(epoch=start.epoch, iter=start.epoch * length + start.batches)
        elif by_epoch:
            self._start = Start(checkpoint['meta']['epoch'])
        else:
            self._start = start_after(checkpoint['meta']['iter'], runner.train_dataloader)
        if note and (start is not None or not by_epoch):  # ResumeHook says it of an epoch that begins again
            runner.logger.warning(f'EpochSeedHook: not resumed exactly: {note}')

    def before_train(self, runner: Runner) -> None:
        """Restore the sampler's seed, and put the place in the data and the seeds of samples into the loader."""
        loader, loop = runner.train_dataloader, runner.train_loop
        batches = loader.batch_sampler
        if not hasattr(batches, 'sampler') or isinstance(loader.dataset, IterableDataset):
            raise ValueError(
                f'EpochSeedHook: {type(loader.dataset).__name__} is not read by batches of indices, so its samples '
                'cannot be seeded nor resumed: use a data set with __len__ and __getitem__, or remove the hook.'
            )
        # Rank 0's seed: with `randomness.diff_rank_seed` each rank has its own, and checkpoints hold only rank 0's.
        seed = [runner.seed]
        broadcast_object_list(seed)
        self._seed = seed[0]

        # The message hub is stored in checkpoints.
        sampler = batches.sampler
        if hasattr(sampler, 'seed'):
            sampler.seed = runner.message_hub.get_info('sampler_seed', sampler.seed)
            runner.message_hub.update_info('sampler_seed', sampler.seed)

        self._stream = batches.sampler = Stream(sampler)
        self._stream.start = self._start.samples
        loader.dataset.__getitems__ = SeededItems(loader.dataset, self._seed)  # torch's loaders look for it
        self._position = DataPosition(loader, self._start)
        if isinstance(loop, IterBasedTrainLoop):
            loop.dataloader_iterator = EndlessBatches(loader, self._begin_pass, self._start.epoch)

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the epoch of the samples' seeds, and the counts of batches and of accumulated ones."""
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            return
        start = self._start if self._start.epoch == runner.epoch else Start(runner.epoch)
        self._start = Start(-1)  # an epoch begins in its middle once
        self._stream.epoch = start.epoch
        self._position.begin(start)
        if start.batches:
            runner.train_loop.run_iter = _CountsFrom(runner.train_loop.run_iter, start.batches)
        if isinstance(runner.optim_wrapper, OptimWrapper):
            length = len(runner.train_dataloader)
            runner.optim_wrapper.initialize_count_status(runner.model, start.batches, length)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None) -> None:
        """Seed what the model draws."""
        seed_model((self._seed, runner.iter, get_rank()))

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: dict | None = None
    ) -> None:
        """Count the batch."""
        self._position.advance()

    def after_train_epoch(self, runner: Runner) -> None:
        """Count the next epoch's batches from the first."""
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            self._position.begin(Start(runner.epoch + 1))
            vars(runner.train_loop).pop('run_iter', None)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Store the place in the data."""
        if hasattr(self, '_position'):
            checkpoint['meta'][KEY] = self._position.state()

    def _begin_pass(self, number: int) -> None:
        """Of training by iteration, over a sampler that ends."""
        self._stream.epoch = number
        if hasattr(self._stream.sampler, 'set_epoch'):
            self._stream.sampler.set_epoch(number)


class _CountsFrom:
    """A loop's ``run_iter`` whose batches are counted on from those before the checkpoint."""

    def __init__(self, run_iter: Any, first: int):
        self._run_iter, self._first = run_iter, first

    def __call__(self, idx: int, data_batch: Any) -> None:
        self._run_iter(idx + self._first, data_batch)
