"""Mmengine's runner, which refuses to train, validate or test on nothing."""

from collections.abc import Sequence, Sized

from mmengine.dataset import InfiniteSampler
from mmengine.runner import BaseLoop, Runner
from torch.utils.data import DataLoader

from mmebm.engine.resuming.stop_signals import ending_at_once
from mmebm.launch.checks.categories import check_categories
from mmebm.launch.schedule import mismatch, without_short


class CheckedRunner(Runner):
    """Mmengine's runner, with checks of what is known once the data sets are built."""

    def setup_env(self, env_cfg: dict) -> None:
        """As mmengine's, which meets the other processes; a signal ends the wait for them."""
        with ending_at_once():
            super().setup_env(env_cfg)

    def build_train_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build mmengine's loop.

        Raises:
            ValueError: It would make no step, or one of less than the batches to accumulate.
        """
        loop = super().build_train_loop(loop)
        check_batches(loop, 'train_dataloader')
        if loop.max_iters < 1:
            raise ValueError(
                f'The training has no step: train_cfg has max_epochs={loop.max_epochs} and {loop.max_iters} iterations '
                'in all; set --cfg-options train_cfg.max_epochs=N (or max_iters), 1 or more'
            )
        counts = (self.cfg.get('optim_wrapper') or {}).get('accumulative_counts', 1)
        if counts > loop.max_iters:
            raise ValueError(
                f'The weights would change once, at the end: optim_wrapper.accumulative_counts={counts} '
                f'batches are accumulated for a step, and the training has {loop.max_iters}; set fewer, or train longer'
            )
        return loop

    def build_val_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build mmengine's loop; raises ValueError if there is nothing to validate on."""
        loop = super().build_val_loop(loop)
        check_batches(loop, 'val_dataloader')
        return loop

    def build_test_loop(self, loop: BaseLoop | dict) -> BaseLoop:
        """Build mmengine's loop; raises ValueError if there is nothing to test on."""
        loop = super().build_test_loop(loop)
        check_batches(loop, 'test_dataloader')
        return loop

    def build_param_scheduler(self, scheduler: dict | Sequence) -> list | dict:
        """Build mmengine's schedulers, of two steps and more; warns if they do not end with the training."""
        parts = [*scheduler] if isinstance(scheduler, Sequence) else [scheduler]
        if all(isinstance(part, dict) and 'type' in part for part in parts):
            scheduler = without_short(parts, len(self.train_dataloader))
        built = super().build_param_scheduler(scheduler)
        for schedulers in built.values() if isinstance(built, dict) else [built]:
            if miss := mismatch(schedulers, self.max_epochs, self.max_iters):
                self.logger.warning(
                    f'The schedule (param_scheduler) does not end with the training: {miss}. Set its begin and end to '
                    'the length in train_cfg; a schedule that fits the length in the config file follows '
                    '--cfg-options train_cfg.max_epochs=N (or max_iters) by itself'
                )
        return built


def check_batches(loop: BaseLoop, section: str) -> None:
    """Check that a loop's data loader has at least one batch, and the categories that its config names.

    Args:
        loop: Of mmengine; one without such a loader is not checked.
        section: The loader's key in the config.

    Raises:
        ValueError: The data set is empty, or smaller than a batch, which ``drop_last`` drops; or its annotations lack a
            class.
    """
    loader = getattr(loop, 'dataloader', None)
    dataset = getattr(loader, 'dataset', None)
    if not isinstance(loader, DataLoader) or not isinstance(dataset, Sized):
        return
    check_categories(dataset, f'{section}.dataset')
    if len(dataset) == 0:
        raise ValueError(
            f'{section}.dataset ({type(dataset).__name__}) has no images, or all of them were filtered out: check its '
            'data_root, data_prefix, ann_file, indices and filter_cfg'
        )
    sampler = getattr(loader.batch_sampler, 'sampler', None)
    if len(loader) == 0 and not isinstance(sampler, InfiniteSampler):  # which repeats the images
        size = loader.batch_sampler.batch_size
        raise ValueError(
            f'{section} has no batch: {len(sampler)} of its {len(dataset)} images fall to this process, and with '
            f'drop_last=True a batch of less than batch_size={size} is dropped. Set --cfg-options '
            f'{section}.batch_size={len(sampler)} or less, or {section}.drop_last=False'
        )
