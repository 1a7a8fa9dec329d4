"""What corruptions share: a transform for any MM pipeline that draws its parameters and applies them."""

import math
from abc import abstractmethod
from collections.abc import Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform
from numpy.random import Generator
from numpy.typing import NDArray

from mmebm.corruptions import functional as F
from mmebm.option_check import check_whole_numbers
from mmebm.pixels import from_pixel_units, to_pixel_units

Params = dict[str, Any]


class Corruption(BaseTransform):
    """Base class: a corruption first draws its parameters (``sample``) and then applies them (``apply``).

    ``apply(img, params)`` is pure, so it can be replayed. As a transform it replaces ``results['img']`` and adds its
    ``name`` to ``results['corruption']``, joined by ``+`` in a chain. Invalid options and images raise ValueError.

    Args:
        seed: If given, sample i of the data set always gets the same corruption, as for validation; the transforms of a
            chain draw independently, even with the same seed. Otherwise draws follow NumPy's global state, which
            mmengine seeds in every worker.
    """

    name: str

    def __init__(self, seed: int | None = None):
        if seed is not None:
            check_whole_numbers(type(self).__name__, least=0, seed=seed)
        self.seed = seed

    @abstractmethod
    def sample(self, shape: tuple[int, ...], rng: Generator) -> Params:
        """Draw the parameters for an image of shape (H, W[, C])."""

    @abstractmethod
    def apply(self, img: NDArray, params: Params) -> NDArray:
        """Corrupt an image (H, W[, C]), uint8 or floating point in pixel units; the input is not changed."""

    def transform(self, results: dict) -> dict:
        """Corrupt ``results['img']``; KeyError if a seed is given and ``results`` has no ``sample_idx``.

        An image of 16 bits is corrupted in pixel units, in which options such as ``sigma`` are, and keeps its type.
        """
        img = results['img']
        pixels = to_pixel_units(img)
        corrupted = self.apply(pixels, self.sample(img.shape, self._generator(results)))
        if pixels is not img:
            corrupted = F.as_type_of(img, from_pixel_units(corrupted, img.dtype))
        results['img'] = corrupted
        results['corruption'] = '+'.join(filter(None, [results.get('corruption'), self.name]))
        return results

    def _generator(self, results: dict) -> Generator:
        if self.seed is None:
            return np.random.default_rng(np.random.randint(2**32, size=2, dtype=np.uint32))
        if 'sample_idx' not in results:
            raise KeyError(
                f"{type(self).__name__}: a fixed seed needs results['sample_idx'], which this data set lacks"
            )
        # A later one of a chain, and of another view of the image, would repeat the first one's draws.
        before = results['corruption'].count('+') + 1 if results.get('corruption') else 0
        return np.random.default_rng([self.seed, results['sample_idx'], before, results.get('view', 0)])

    def _grid(self, shape: tuple[int, ...], patch_size: int) -> tuple[int, int]:
        """Rows and columns of patches in an image; ValueError if the patch size does not divide it."""
        if shape[0] % patch_size or shape[1] % patch_size:
            raise ValueError(
                f'{type(self).__name__}: patch_size {patch_size} does not divide the image size '
                f'{shape[0]}x{shape[1]}; resize or crop the image before, or change patch_size'
            )
        return shape[0] // patch_size, shape[1] // patch_size

    def _range(self, name: str, value: float | Sequence[float], lowest: float) -> tuple[float, float]:
        """A number as the range from it to itself; a range unchanged."""
        limits = tuple(value) if isinstance(value, Sequence) else (value, value)
        are_two = len(limits) == 2 and all(isinstance(limit, Real) and limit < math.inf for limit in limits)
        requirement = f'{name} must be at least {lowest}, or a range of two such numbers, lower first'
        self._check(are_two and lowest <= limits[0] <= limits[1], requirement, value)
        return limits[0], limits[1]

    def _check_share(self, name: str, value: float) -> None:
        self._check(isinstance(value, Real) and 0 <= value <= 1, f'{name} must be in [0, 1]', value)

    def _check_patch_size(self, value: int) -> None:
        self._check(isinstance(value, Integral) and value >= 1, 'patch_size must be a whole number, at least 1', value)

    def _check(self, is_valid: bool, requirement: str, value: Any) -> None:
        if not is_valid:
            raise ValueError(f'{type(self).__name__}: {requirement}, not {value!r}')
