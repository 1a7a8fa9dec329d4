"""Logs what the energy thinks of clean, corrupted and restored images."""

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from mmebm.engine.undisturbed import undisturbed
from mmebm.registry import HOOKS


@HOOKS.register_module()
class EnergyLogHook(Hook):
    """Logs the mean energy of a training batch's clean, corrupted and restored images.

    The clean and the restored images' energies cost two forward passes that training does not need, so they are
    measured only now and then. They appear beside the loss as ``energy_clean``, ``energy_corrupted`` and
    ``energy_restored``.

    Args:
        interval: In iterations.
    """

    def __init__(self, interval: int = 50):
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | Sequence | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Score the batch that was just trained on, with the network in evaluation mode."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with undisturbed(model):
            samples = model.val_step(data_batch)
        energies = torch.stack([sample.energies for sample in samples])
        means = dict(
            clean=torch.stack([sample.clean_energy for sample in samples]).mean(),
            corrupted=energies[:, 0].mean(),
            restored=energies[:, -1].mean(),
        )
        for name, value in means.items():
            runner.message_hub.update_scalar(f'train/energy_{name}', value.item())
