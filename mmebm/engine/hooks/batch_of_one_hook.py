"""Stops before an epoch is trained whose last batch, of one image, batch normalisation cannot take."""

from collections.abc import Iterator
from functools import partial

from mmengine.dataset import InfiniteSampler
from mmengine.hooks import Hook
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader
from torch.utils.hooks import RemovableHandle

from mmebm.model_building import unwrapped
from mmebm.registry import HOOKS


@HOOKS.register_module()
class BatchOfOneHook(Hook):
    """Reject batches of one image where batch normalisation has a single value per image and channel.

    That has no variance: torch raises an error, at the end of the first epoch if only its last batch has one image.
    The layers are known in the first iteration.

    Raises:
        ValueError: (in the first forward pass) The message names the layer, the data set's size and remedies.
    """

    def __init__(self) -> None:
        self.handles: list[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        """Watch the layers if there will be a batch of one."""
        problem = _batch_of_one(runner.train_dataloader)
        if problem:
            self.handles = [*_watch(unwrapped(runner.model), problem)]

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        """Watch no longer."""
        while self.handles:
            self.handles.pop().remove()


def _batch_of_one(loader: DataLoader) -> str | None:
    """What gives a batch of one image and what to set, in words; None if nothing does."""
    batches = loader.batch_sampler
    batch_size = getattr(batches, 'batch_size', None)
    if batch_size == 1:
        return 'train_dataloader.batch_size is 1: set a larger one'
    is_endless = isinstance(loader.sampler, InfiniteSampler)
    if batch_size is None or is_endless or batches.drop_last or len(loader.sampler) % batch_size != 1:
        return None
    return (
        f'of {len(loader.sampler)} images in batches of {batch_size}, the last batch is one image: set '
        'train_dataloader.drop_last=True or another train_dataloader.batch_size'
    )


def _watch(model: nn.Module, problem: str) -> Iterator[RemovableHandle]:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and not isinstance(module, nn.SyncBatchNorm):
            yield module.register_forward_pre_hook(partial(_check, name, problem))


def _check(name: str, problem: str, module: nn.Module, args: tuple[Tensor, ...]) -> None:
    is_training = module.training or (module.running_mean is None and module.running_var is None)
    if is_training and args[0].shape[2:].numel() == 1:
        raise ValueError(
            f'{name}: batch normalisation of one value per image and channel needs two images or more, but {problem}, '
            'or use larger images'
        )
