"""Training pairs of corrupted and clean images."""

import random
from collections.abc import Callable, Sequence
from numbers import Real
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform, Compose
from numpy.typing import NDArray

from mmebm.corruptions.base import Corruption
from mmebm.corruptions.functional import as_type_of, contiguous
from mmebm.option_check import check_whole_numbers
from mmebm.pixels import to_pixel_units
from mmebm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class CorruptedPair(BaseTransform):
    """Replaces ``results['img']`` by ``[corrupted, clean]``, two views that ``PackInputs`` packs.

    Images of 16 bits become float32 in pixel units (0 to 255). An image that comes from no data set, but was loaded by
    one of mmpretrain's inferencers, such as ``FeatureExtractor``, stays a single clean image: its features are asked
    for.

    Args:
        corruption: Config of a transform, or a list of configs that form a chain. Any transform that changes
            ``results['img']`` and keeps its shape works; for mixtures use mmcv's ``RandomChoice``. Albumentations'
            transforms follow NumPy's global state, as mmebm's do, unless they were given a seed.
        strength: Position of the pair's first image on the line from the clean (0) to the corrupted image (1); a range
            is drawn from per image, from NumPy's global state even if the corruption has a seed. With (0, 1) the energy
            is trained on the whole line, along which it has to decrease towards the clean image.
        num_views: Number of corrupted images before the clean one, each corrupted by a draw of its own. Training takes
            one; several are for :class:`mmebm.evaluation.LiDAR`.

    Raises:
        KeyError: A transform is not registered; the message lists mmebm's.
        ValueError: The corruption changes the image's shape, a transform refuses its options, ``strength`` is not
            within 0 to 1, or ``num_views`` is less than 1.
    """

    def __init__(
        self,
        corruption: dict | Callable | Sequence[dict | Callable],
        strength: float | tuple[float, float] = 1.0,
        num_views: int = 1,
    ):
        check_whole_numbers('CorruptedPair', num_views=num_views)
        self.num_views = num_views
        self.strength = tuple(strength) if isinstance(strength, (list, tuple)) else (strength, strength)
        are_two = len(self.strength) == 2 and all(isinstance(limit, Real) for limit in self.strength)
        if not (are_two and 0 <= self.strength[0] <= self.strength[1] <= 1):
            raise ValueError(f'CorruptedPair: strength must be in [0, 1], or a range within, not {strength!r}')
        steps = corruption if isinstance(corruption, (list, tuple)) else [corruption]
        try:
            self.corruption = Compose(steps)
        except KeyError as error:
            ours = [f'mmebm.{name}' for name, cls in TRANSFORMS.module_dict.items() if issubclass(cls, Corruption)]
            raise KeyError(
                f'CorruptedPair: unknown corruption; mmebm has {ours}, not corruption={corruption!r}. {error.args[0]}'
            ) from error
        except AssertionError as error:  # mmcv's RandomChoice compares the sum with 1 exactly, and gives no message
            raise ValueError(
                f'CorruptedPair: a transform refuses its options{f" ({error})" if str(error) else ""}. The prob of a '
                'RandomChoice are floats, one per choice, whose sum is exactly 1; without them all are equally likely. '
                'Against rounding, write the last one as 1 minus the others, as in [0.7, 0.2, 1 - (0.7 + 0.2)]'
            ) from error
        self.composes = unseeded_composes(self.corruption)

    def transform(self, results: dict) -> dict | None:
        """Make the pair, arrays (H, W[, C]); None if the corruption returned None."""
        if not isinstance(results['img'], np.ndarray):
            raise TypeError(
                f"CorruptedPair: results['img'] is a {type(results['img']).__name__}, not one image: there is a "
                'MultiView or another CorruptedPair before it in the pipeline. It makes two views itself; take the '
                'other one out'
            )
        clean = contiguous(to_pixel_units(results['img']))
        if is_of_inferencer(results):
            return {**results, 'img': clean}
        views = []
        for view in range(self.num_views):
            self._seed_composes()
            corrupted = self.corruption({**results, 'img': clean.copy(), 'view': view})
            if corrupted is None:
                return None
            if corrupted['img'].shape != clean.shape:
                raise ValueError(
                    f"CorruptedPair: the corruption changed the image's shape from {clean.shape} to "
                    f'{corrupted["img"].shape}; it must keep it'
                )
            views.append(as_type_of(clean, self._weaken(clean, corrupted['img'])))
        results['img'] = [*views, clean]
        results['corruption'] = corrupted.get('corruption', 'custom')
        return results

    def _seed_composes(self) -> None:
        if self.composes:
            # Two generators for all: `set_random_seed` would give each transform its own, with the same draws.
            generator = np.random.default_rng(np.random.randint(2**32, size=2, dtype=np.uint32))
            py_random = random.Random(int(generator.integers(2**64, dtype=np.uint64)))
            for compose in self.composes:
                compose.set_random_state(generator, py_random)

    def _weaken(self, clean: NDArray, corrupted: NDArray) -> NDArray:
        if self.strength == (1.0, 1.0):
            return corrupted
        return clean + np.float32(np.random.uniform(self.strength[0], self.strength[1])) * (
            corrupted - clean.astype(np.float32)
        )


def is_of_inferencer(results: dict) -> bool:
    """Whether an image was loaded, but by none of the data sets, which number their samples and name their files."""
    return 'ori_shape' in results and not results.keys() & {'sample_idx', 'img_path'}


def unseeded_composes(transform: Any) -> list[Any]:
    """Albumentations' ``Compose`` without a seed within a transform, at any depth of mmcv's wrappers.

    Since Albumentations 1.4.21 it has its own generators, which are the same in every worker of every epoch. Before, it
    drew from Python's, which mmengine seeds in every worker.
    """
    if isinstance(transform, (list, tuple)):
        return [compose for inner in transform for compose in unseeded_composes(inner)]
    compose: Any = getattr(transform, 'aug', None)  # the attribute of mmpretrain's `Albumentations`
    if hasattr(compose, 'set_random_state'):
        return [compose] if compose.seed is None else []
    return unseeded_composes(getattr(transform, 'transforms', []))
