"""Logs what the energy thinks of clean, corrupted and restored images."""

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor

from mmebm.engine.evaluating import evaluating
from mmebm.model_building import unwrapped
from mmebm.registry import HOOKS


@HOOKS.register_module()
class EnergyLogHook(Hook):
    """Logs the mean energy of clean, corrupted and restored images of a training batch.

    The clean and the restored images' energies cost two forward passes that training does not need, so they are
    measured only now and then, on a few images and in the precision of training. They appear beside the loss as
    ``energy_clean``, ``energy_corrupted`` and ``energy_restored``.

    Args:
        interval: In iterations of an epoch; of a shorter one, the last.
        num_images: How many images of a batch are scored at most, the first ones. They go through the network at once,
            whatever ``micro_batch`` and ``low_memory`` are.

    Raises:
        ValueError: ``num_images`` is less than 1.
    """

    def __init__(self, interval: int = 50, num_images: int = 32):
        if num_images < 1:
            raise ValueError(f'EnergyLogHook: num_images={num_images}, expected 1 or more')
        self.interval = interval
        self.num_images = num_images

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Score images of the batch that was just trained on, with the network in evaluation mode."""
        # When mmengine's LoggerHook logs, so that it does not show old energies.
        loader = runner.train_dataloader
        is_short = len(loader) < self.interval
        if not (
            self.every_n_inner_iters(batch_idx, self.interval) or is_short and self.end_of_epoch(loader, batch_idx)
        ):
            return
        model = unwrapped(runner.model)
        with evaluating(model), runner.optim_wrapper.optim_context(model):
            samples = model.val_step(first_images(data_batch, self.num_images))
        energies = torch.stack([sample.energies for sample in samples])
        means = dict(
            clean=torch.stack([sample.clean_energy for sample in samples]).mean(),
            corrupted=energies[:, 0].mean(),
            restored=energies[:, -1].mean(),
        )
        for name, value in means.items():
            runner.message_hub.update_scalar(f'train/energy_{name}', value.item())


def first_images(data_batch: dict, num_images: int) -> dict:
    """The first images of a collated batch, in each view if there are several, and their data samples."""
    inputs, samples = data_batch['inputs'], data_batch['data_samples']
    first = inputs[:num_images] if isinstance(inputs, Tensor) else [view[:num_images] for view in inputs]
    return dict(inputs=first, data_samples=samples[:num_images])
