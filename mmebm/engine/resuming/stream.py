"""The order of a training's samples, entered at any place."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

from mmengine.dataset import DefaultSampler, InfiniteSampler
from mmengine.dist import get_rank, get_world_size
from mmpretrain.datasets import RepeatAugSampler
from torch.utils.data import DataLoader, Sampler

from mmebm.engine.resuming.draws import Draw

# Samplers of which process r of W takes every W-th index from r on, so that all together follow one order.
STRIDED = (DefaultSampler, InfiniteSampler, RepeatAugSampler)


class Stream(Sampler):
    """A sampler that begins its next pass at a given place, and gives every index what its draws are seeded from.

    Args:
        sampler: Any sampler of mmengine's kind; other attributes are read from it.
    """

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self.epoch = 0
        self.start = 0  # samples of this process to leave out in the next pass

    def __iter__(self) -> Iterator[Draw]:
        start, self.start, epoch = self.start, 0, self.epoch
        rank, processes = get_rank(), get_world_size()
        is_infinite = isinstance(self.sampler, InfiniteSampler)
        if is_infinite:
            self.sampler.skip(start)
        indices = iter(self.sampler) if is_infinite else islice(iter(self.sampler), start, None)
        for count, index in enumerate(indices, start):
            place = count * processes + rank  # in the order of all processes
            passes = place // self.sampler.size if is_infinite else 0
            yield Draw(index, (epoch + passes, int(index), self._repetition(place)))

    def __len__(self) -> int:
        return len(self.sampler)

    def __getattr__(self, name: str) -> Any:
        if name == 'sampler':
            raise AttributeError(name)
        return getattr(self.sampler, name)

    def _repetition(self, place: int) -> int:
        """Which of an index's repetitions in an epoch is at a place."""
        if isinstance(self.sampler, RepeatAugSampler):
            return place % self.sampler.num_repeats
        return 0 if isinstance(self.sampler, STRIDED) else place


class EndlessBatches:
    """Batches of a loader without end, in place of mmengine's, which reads batches only to skip them.

    Args:
        loader: The loader.
        begin_pass: Called with the number of each pass before it begins.
        first: Number of the first pass.
    """

    def __init__(self, loader: DataLoader, begin_pass: Callable[[int], None], first: int):
        self._loader, self._begin_pass, self._pass = loader, begin_pass, first
        self._batches: Iterator[Any] | None = None

    def __iter__(self) -> 'EndlessBatches':
        return self

    def __next__(self) -> Any:
        if self._batches is not None:
            try:
                return next(self._batches)
            except StopIteration:
                self._pass += 1
        self._begin_pass(self._pass)
        self._batches = iter(self._loader)
        return next(self._batches)

    def skip_iter(self, num_iters: int) -> None:
        """Called by mmengine's loop when it resumes: nothing, since the sampler begins at its place."""
