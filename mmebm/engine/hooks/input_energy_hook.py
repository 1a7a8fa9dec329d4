"""Logs the energy of another model's training images under a pretrained energy model."""

from collections.abc import Sequence

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmpretrain import get_model
from torch import Tensor
from torch.nn.functional import interpolate

from mmebm.checkpoint import check_fit, read_checkpoint
from mmebm.config_files import find_config
from mmebm.engine.dry_run import idle_in_dry_runs
from mmebm.engine.evaluating import evaluating
from mmebm.option_check import check_whole_numbers
from mmebm.registry import HOOKS


@HOOKS.register_module()
@idle_in_dry_runs
class InputEnergyHook(Hook):
    """Logs the mean energy of a training batch's images under a model pretrained by ``EBMAlgorithm``.

    It works in every training on batches of images, as in mmpretrain, mmseg and mmdet, and detects images that differ
    from those of the pretraining: a broken augmentation, another camera. Training is not affected: weights are bitwise
    the same with and without this hook. The energy is logged with the loss as ``input_energy``.

    Args:
        config: The config file of the pretraining, or the name of one of mmebm's configs.
        checkpoint: The checkpoint of the pretraining.
        interval: Iterations between two measurements.
        size: Images are resized to squares of this side in pixels, since energies at different sizes do not compare.

    Raises:
        ValueError: ``interval`` or ``size`` is less than 1.
    """

    def __init__(self, config: str, checkpoint: str, interval: int = 50, size: int = 224):
        check_whole_numbers('InputEnergyHook', interval=interval, size=size)
        self.config = config
        self.checkpoint = checkpoint
        self.interval = interval
        self.size = size

    def before_train(self, runner: Runner) -> None:
        """Loads the energy model, onto the device of the trained one.

        Raises:
            FileNotFoundError: There is no such config or checkpoint.
            TypeError: The config's model has no energy.
            ValueError: The checkpoint is broken, unsafe to load, or of another model than the config's; or several
                configs have that name.
        """
        checkpoint = read_checkpoint(self.checkpoint)
        with evaluating(runner.model):  # initial weights are drawn before the checkpoint replaces them
            self.model = get_model(find_config(self.config)).eval()
        if not hasattr(self.model, 'energy'):
            raise TypeError(
                f'InputEnergyHook: {self.config} is a config of {type(self.model).__name__}, which has no energy; '
                'give one of mmebm.EBMAlgorithm'
            )
        check_fit(checkpoint.state, self.model.state_dict(), self.checkpoint, self.config)
        self.model.load_state_dict(checkpoint.state)
        self.model.to(next(runner.model.parameters()).device)

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        """Logs the energy of the current training batch."""
        if self.every_n_train_iters(runner, self.interval):
            energies = self.energies(data_batch['inputs'])
            runner.message_hub.update_scalar('train/input_energy', energies.mean().item())

    @torch.no_grad()
    def energies(self, images: Tensor | Sequence[Tensor]) -> Tensor:
        """Energies (N,) of N images (C, H, W) as data loaders return them: BGR, 0 to 255, of any sizes.

        Raises:
            TypeError: A sample is not one image.
        """
        if not isinstance(images, (Tensor, list, tuple)) or any(image.dim() != 3 for image in images):
            raise TypeError('InputEnergyHook needs batches of one image (C, H, W) per sample, not of several views')
        squares = [
            interpolate(image[None].float(), (self.size, self.size), mode='bilinear', antialias=True)
            for image in images
        ]
        batch = dict(inputs=torch.cat(squares), data_samples=None)
        return self.model.energy(self.model.data_preprocessor(batch, False)['inputs'])
