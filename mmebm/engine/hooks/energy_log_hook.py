"""Logs the mean energy of clean, corrupted and restored images."""

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.evaluating import evaluating
from mmebm.model_building import unwrapped
from mmebm.option_check import check_whole_numbers
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class EnergyLogHook(Hook):
    """Logs the mean energy of clean, corrupted and restored images of a training batch.

    The energies of clean and restored images cost two forward passes that training does not need, so they are measured
    at intervals, on a few images and in the precision of training. They are logged with the loss as ``energy_clean``,
    ``energy_corrupted`` and ``energy_restored``.

    Args:
        interval: Iterations within an epoch between two measurements; in a shorter epoch, the last iteration.
        num_images: Maximum number of images per measurement, the first ones of the batch. They are processed at once,
            regardless of ``micro_batch`` and ``low_memory``.

    Raises:
        ValueError: A number is less than 1.
    """

    def __init__(self, interval: int = 50, num_images: int = 32):
        check_whole_numbers('EnergyLogHook', interval=interval, num_images=num_images)
        self.interval = interval
        self.num_images = num_images

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Log energies of images of the current training batch, with the network in evaluation mode."""
        # In the same iterations as mmengine's LoggerHook, so that it does not log old energies.
        loader = runner.train_dataloader
        is_short = len(loader) < self.interval
        if not (
            self.every_n_inner_iters(batch_idx, self.interval) or is_short and self.end_of_epoch(loader, batch_idx)
        ):
            return
        model = unwrapped(runner.model)
        with evaluating(model), runner.optim_wrapper.optim_context(model):
            batch = first_images(data_batch, self.num_images)
            if getattr(model, 'corruption', None):  # which predicts pairs of what is in a list
                batch['inputs'] = [batch['inputs']] if isinstance(batch['inputs'], Tensor) else batch['inputs']
            samples = model.val_step(batch)
        energies = torch.stack([sample.energies for sample in samples])
        means = dict(
            clean=torch.stack([sample.clean_energy for sample in samples]).mean(),
            corrupted=energies[:, 0].mean(),
            restored=energies[:, -1].mean(),
        )
        for name, value in means.items():
            runner.message_hub.update_scalar(f'train/energy_{name}', value.item())


def first_images(data_batch: dict, num_images: int) -> dict:
    """The first images of a collated batch, of each view if there are several, and their data samples."""
    inputs, samples = data_batch['inputs'], data_batch['data_samples']
    first = inputs[:num_images] if isinstance(inputs, Tensor) else [view[:num_images] for view in inputs]
    return dict(inputs=first, data_samples=samples[:num_images])
