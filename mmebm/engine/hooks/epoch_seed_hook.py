"""Random numbers that depend only on seed, epoch and rank, so that a resumed run equals an uninterrupted one."""

import random
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from mmengine.dist import broadcast_object_list, get_rank
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import IterBasedTrainLoop, Runner

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class EpochSeedHook(Hook):
    """Seed Python, NumPy and torch before each training epoch from (seed, epoch, rank).

    A run resumed from the checkpoint of an epoch then draws the same numbers as the uninterrupted run.
    With ``accumulative_counts``, the last update of an epoch uses the remaining batches, since gradients accumulated
    but not applied at a checkpoint would be lost.
    It also fixes two problems of mmengine: it seeds workers with the same numbers in every epoch, so each epoch draws
    the same augmentations; and a sampler whose seed is not in the config gets a new one when resumed.

    Raises:
        ValueError: Training is by iteration, or ``train_dataloader.persistent_workers`` is set.
    """

    priority = 'VERY_HIGH'

    def before_train(self, runner: Runner) -> None:
        """Check the loop and the data loader, and restore the sampler's seed."""
        dataloader = runner.train_dataloader
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                'EpochSeedHook seeds at the start of each epoch, and training by iteration has none: '
                'set `train_cfg=dict(by_epoch=True, max_epochs=...)` or remove the hook.'
            )
        if dataloader.persistent_workers:
            raise ValueError(
                'EpochSeedHook: persistent workers cannot be seeded again in each epoch: '
                'set `train_dataloader.persistent_workers=False` or remove the hook.'
            )
        # Rank 0's seed: with `randomness.diff_rank_seed` each rank has its own, and checkpoints hold only rank 0's.
        seed = [runner.seed]
        broadcast_object_list(seed)
        self._seed = seed[0]
        self._worker_init_fn = dataloader.worker_init_fn

        # The message hub is stored in checkpoints.
        sampler = dataloader.batch_sampler.sampler
        if hasattr(sampler, 'seed'):
            sampler.seed = runner.message_hub.get_info('sampler_seed', sampler.seed)
            runner.message_hub.update_info('sampler_seed', sampler.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        """Seed this process and the workers about to start, and reset the count of accumulated batches."""
        entropy = (self._seed, runner.epoch, get_rank())
        _seed_all(entropy)
        runner.train_dataloader.worker_init_fn = partial(_init_worker, entropy=entropy, init_fn=self._worker_init_fn)
        if isinstance(runner.optim_wrapper, OptimWrapper):
            runner.optim_wrapper.initialize_count_status(runner.model, 0, len(runner.train_dataloader))


def _seed_all(entropy: tuple[int, ...]) -> None:
    # SeedSequence mixes; a sum would give epoch 1 of rank 0 the numbers of epoch 0 of rank 1.
    seed = int(np.random.SeedSequence(entropy).generate_state(1)[0])
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)  # every GPU too


def _init_worker(worker_id: int, entropy: tuple[int, ...], init_fn: Callable[[int], None] | None) -> None:
    if init_fn is not None:
        init_fn(worker_id)
    _seed_all((*entropy, worker_id + 1))  # + 1: SeedSequence ignores a trailing zero
