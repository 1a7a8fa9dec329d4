"""How far a training has come in its data, counted in samples of all processes."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from mmengine.dataset import InfiniteSampler
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, DataLoader

from mmebm.engine.resuming.stream import STRIDED, Stream

KEY = 'data_position'  # in the ``meta`` of checkpoints


class Start(NamedTuple):
    """Where a training begins.

    Attributes:
        epoch: Number of finished epochs, or of passes over the data in training by iteration.
        samples: Of this process, which are left out in that epoch.
        batches: How many batches of the epoch that is, in the present loader's count.
    """

    epoch: int = 0
    samples: int = 0
    batches: int = 0


class DataPosition:
    """Counts the batches of a training.

    Args:
        loader: The training's loader.
        start: Where it begins.
    """

    def __init__(self, loader: DataLoader, start: Start):
        self._loader = loader
        self.begin(start)

    def begin(self, start: Start) -> None:
        """Be at the start of an epoch, or within one."""
        self.epoch, self._samples = start.epoch, start.samples
        self._left = None if is_infinite(self._loader) else len(self._loader) - start.batches

    def advance(self) -> None:
        """One batch more is done."""
        self._samples += self._loader.batch_sampler.batch_size
        if self._left is not None:
            self._left -= 1
            if self._left <= 0:
                self.begin(Start(self.epoch + 1))

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return dict(
            epoch=self.epoch, samples=self._samples * get_world_size(), processes=get_world_size(),
            sampler=_sampler_name(self._loader), images=len(self._loader.dataset),
        )  # fmt: skip


def exact_start(checkpoint: Mapping[str, Any], runner: Runner) -> tuple[Start | None, str]:
    """Where a resumed training begins in its data.

    Args:
        checkpoint: Of mmengine, with what ``DataPosition`` stored in it.
        runner: That resumes, whose loader is built.

    Returns:
        The start; None if it cannot be known or entered. And why not, or what is inexact about it; empty if nothing.
    """
    stored, loader = checkpoint['meta'].get(KEY), runner.train_dataloader
    if not stored:
        return None, 'the checkpoint does not say at which sample'
    if not stored['samples']:
        return Start(stored['epoch']), ''
    processes, sampler = get_world_size(), loader.batch_sampler.sampler
    if type(loader.batch_sampler) is not BatchSampler:
        return None, f'{type(loader.batch_sampler).__name__} makes the batches, which can only begin with the first'
    if stored['sampler'] != _sampler_name(loader):
        return None, f'the sampler is {_sampler_name(loader)} now, and was {stored["sampler"]}'
    if stored['images'] != len(loader.dataset):
        return None, f'the data set has {len(loader.dataset)} images now, and had {stored["images"]}'
    if stored['processes'] != processes and not isinstance(sampler, STRIDED):
        return None, f'{_sampler_name(loader)} has another order for {processes} processes than for those before'
    samples, rest = divmod(stored['samples'], processes)
    note = (
        f'{rest} samples are seen twice: {stored["samples"]} do not divide into {processes} processes' if rest else ''
    )
    if is_infinite(loader):
        return Start(stored['epoch'], samples), note
    batches, rest = divmod(len(sampler) - samples, loader.batch_sampler.batch_size)
    left = batches + (rest > 0 and not loader.batch_sampler.drop_last)
    if left <= 0:
        return Start(stored['epoch'] + 1), note
    return Start(stored['epoch'], samples, len(loader) - left), note


def start_after(iterations: int, loader: DataLoader) -> Start:
    """Where a training by iteration is after so many batches of the present loader."""
    size = loader.batch_sampler.batch_size
    if is_infinite(loader):
        return Start(0, iterations * size)
    epoch, batches = divmod(iterations, len(loader))
    return Start(epoch, batches * size, batches)


def is_infinite(loader: DataLoader) -> bool:
    """Whether a loader's sampler has no end."""
    sampler = loader.batch_sampler.sampler
    return isinstance(sampler.sampler if isinstance(sampler, Stream) else sampler, InfiniteSampler)


def _sampler_name(loader: DataLoader) -> str:
    sampler = loader.batch_sampler.sampler
    return type(sampler.sampler if isinstance(sampler, Stream) else sampler).__name__
