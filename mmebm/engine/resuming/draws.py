"""Random draws of samples that depend on nothing but the seed, the epoch and the sample."""

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch.utils.data import get_worker_info

# Last numbers of the entropy: what draws.
MODEL, SAMPLE = 1, 2


class Draw(int):
    """An index of a data set together with what its random draws are seeded from, besides the run's seed.

    It travels with the index to the workers, so that one that lives for several epochs knows the epoch as well.
    """

    def __new__(cls, index: int, key: tuple[int, ...]):
        """Index of the sample; ``key``: epoch, index, and which of its repetitions in the epoch it is."""
        draw = super().__new__(cls, index)
        draw.key = key
        return draw

    def __getnewargs__(self) -> tuple[int, tuple[int, ...]]:
        return int(self), self.key


class SeededItems:
    """A data set's ``__getitems__``, which torch's loaders call for a batch: seeds each sample by its ``Draw``.

    Args:
        dataset: Any map-style data set.
        seed: Of the run.
    """

    def __init__(self, dataset: Any, seed: int):
        self.dataset, self.seed = dataset, seed

    def __call__(self, indices: Sequence[int]) -> list[Any]:
        """The samples; indices that are no ``Draw`` are read without seeding."""
        if get_worker_info() is not None:
            return [self._item(index) for index in indices]
        with host_states_kept():
            return [self._item(index) for index in indices]

    def _item(self, index: int) -> Any:
        if isinstance(index, Draw):
            seed_host((self.seed, *index.key, SAMPLE))
            index = int(index)
        if hasattr(type(self.dataset), '__getitems__'):  # as torch's Subset has
            return type(self.dataset).__getitems__(self.dataset, [index])[0]
        return self.dataset[index]


def seed_host(entropy: tuple[int, ...]) -> int:
    """Seed Python, NumPy and torch's generator of the CPU; returns the seed of torch.

    ``SeedSequence`` mixes: with a sum, epoch 1 of sample 0 would draw as epoch 0 of sample 1.
    """
    numbers = np.random.SeedSequence(entropy).generate_state(8)
    random.seed(numbers[:3].tobytes())
    np.random.seed(numbers[3:6])
    seed = int(numbers[6:].view(np.uint64)[0] >> 1)
    torch.default_generator.manual_seed(seed)
    return seed


def seed_model(entropy: tuple[int, ...]) -> None:
    """Seed the same, and the generators of all accelerators."""
    torch.manual_seed(seed_host((*entropy, MODEL)))


@contextmanager
def host_states_kept() -> Iterator[None]:
    """Context that leaves the random states of the CPU as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
