"""The corruptions: how each is drawn and applied."""

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray

from mmebm.corruptions import functional as F
from mmebm.corruptions.base import Corruption, Params
from mmebm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class PatchMask(Corruption):
    """Masked image modelling: mask square patches.

    Args:
        ratio: Share of masked patches, 0 to 1; their number is rounded.
        patch_size: Side of a patch in pixels.
        layout: ``random`` patches, or ``block``: rectangles of several patches, as BEiT masks (arXiv 2106.08254).
        fill: ``mean``: the mean colour of the visible patches; ``noise``: uniform in 0 to 255; or a constant, one
            number or one per channel, in pixel units.
        seed: See ``Corruption``.
    """

    name = 'mask'

    def __init__(
        self,
        ratio: float = 0.6,
        patch_size: int = 16,
        layout: Literal['random', 'block'] = 'random',
        fill: Literal['mean', 'noise'] | float | Sequence[float] = 'mean',
        seed: int | None = None,
    ):
        super().__init__(seed)
        self._check_share('ratio', ratio)
        self._check_patch_size(patch_size)
        self._check(layout in ('random', 'block'), "layout must be 'random' or 'block'", layout)
        is_colour = np.asarray(fill).dtype.kind in 'iuf' and np.size(fill) > 0 and bool(np.isfinite(fill).all())
        self._check(
            is_colour or isinstance(fill, str) and fill in ('mean', 'noise'),
            "fill must be 'mean', 'noise' or a colour",
            fill,
        )
        self.ratio = ratio
        self.patch_size = patch_size
        self.draw_mask = random_mask if layout == 'random' else block_mask
        self.fill = fill

    def sample(self, shape: tuple[int, ...], rng: Generator) -> Params:
        """A mask (rows, columns), True = masked, and for ``fill='noise'`` the noise (H, W[, C])."""
        channels = shape[2] if len(shape) == 3 else 1
        self._check(isinstance(self.fill, str) or np.size(self.fill) in (1, channels),
                    f'fill must be one number or one per channel, of which the image has {channels}',
                    self.fill)  # fmt: skip
        grid = self._grid(shape, self.patch_size)
        params: Params = dict(mask=self.draw_mask(grid, round(self.ratio * grid[0] * grid[1]), rng))
        if self.fill == 'noise':
            params['noise'] = rng.integers(0, 256, size=shape, dtype=np.uint8)
        return params

    def apply(self, img: NDArray, params: Params) -> NDArray:
        """Replace the masked patches by the fill."""
        mask = params['mask']
        if self.fill == 'noise':
            return F.mask_patches(img, mask, params['noise'])
        fill = F.visible_mean(img, mask) if self.fill == 'mean' else np.asarray(self.fill, dtype=np.float32)
        return F.mask_patches(img, mask, fill)


def random_mask(grid: tuple[int, int], count: int, rng: Generator) -> NDArray[np.bool_]:
    """A mask over the grid with ``count`` patches masked (True), drawn uniformly."""
    mask = np.zeros(grid[0] * grid[1], dtype=bool)
    mask[rng.permutation(mask.size)[:count]] = True
    return mask.reshape(grid)


def block_mask(
    grid: tuple[int, int], count: int, rng: Generator, min_area: int = 4, min_aspect: float = 0.3
) -> NDArray[np.bool_]:
    """A mask over the grid with exactly ``count`` patches masked (True), as a union of rectangles.

    Rectangles have at least ``min_area`` patches and an aspect ratio log-uniform between ``min_aspect`` and its
    inverse (arXiv 2106.08254, algorithm 1). Of the last one, random patches beyond ``count`` stay visible.
    """
    mask = np.zeros(grid, dtype=bool)
    while (missing := count - np.count_nonzero(mask)) > 0:
        area = rng.uniform(min_area, max(min_area, missing))
        aspect = math.exp(rng.uniform(math.log(min_aspect), -math.log(min_aspect)))
        height = min(grid[0], max(1, round(math.sqrt(area * aspect))))
        width = min(grid[1], max(1, round(math.sqrt(area / aspect))))
        top, left = rng.integers(grid[0] - height + 1), rng.integers(grid[1] - width + 1)
        block = mask[top : top + height, left : left + width]
        new = np.flatnonzero(~block)
        rows, columns = np.unravel_index(rng.permutation(new)[:missing], block.shape)
        block[rows, columns] = True
    return mask


@TRANSFORMS.register_module()
class PatchShuffle(Corruption):
    """Patch sorting: permute square patches.

    Args:
        patch_size: Side of a patch in pixels.
        share: Share of permuted patches, 0 to 1; their number is rounded. Each of them changes its position; a single
            one stays.
        seed: See ``Corruption``.
    """

    name = 'sort'

    def __init__(self, patch_size: int = 16, share: float = 1.0, seed: int | None = None):
        super().__init__(seed)
        self._check_share('share', share)
        self._check_patch_size(patch_size)
        self.patch_size = patch_size
        self.share = share

    def sample(self, shape: tuple[int, ...], rng: Generator) -> Params:
        """An order (rows * columns,) of all patches: patch ``order[i]`` moves to position i."""
        rows, columns = self._grid(shape, self.patch_size)
        order = np.arange(rows * columns)
        moved = rng.permutation(order.size)[: round(self.share * order.size)]
        order[moved] = np.roll(moved, 1)  # a random cycle, so that no chosen patch stays
        return dict(order=order)

    def apply(self, img: NDArray, params: Params) -> NDArray:
        """Reorder the patches."""
        return F.shuffle_patches(img, params['order'], self.patch_size)


@TRANSFORMS.register_module()
class Downsample(Corruption):
    """Super-resolution: shrink the image and enlarge it to full size again.

    Args:
        factor: By which each side is divided, at least 1; or the range from which it is drawn uniformly.
        interpolation: For enlarging: ``nearest``, ``bilinear``, ``bicubic``, ``lanczos`` or ``area``. The image is
            shrunk by area averaging.
        seed: See ``Corruption``.
    """

    name = 'sr'

    def __init__(
        self, factor: float | tuple[float, float] = 4, interpolation: str = 'bicubic', seed: int | None = None
    ):
        super().__init__(seed)
        self.factor = self._range('factor', factor, lowest=1)
        self._check(interpolation in F.INTERPOLATIONS, f'interpolation must be one of {[*F.INTERPOLATIONS]}',
                    interpolation)  # fmt: skip
        self.interpolation = interpolation

    def sample(self, shape: tuple[int, ...], rng: Generator) -> Params:
        """A factor."""
        return dict(factor=rng.uniform(*self.factor))

    def apply(self, img: NDArray, params: Params) -> NDArray:
        """Shrink and enlarge."""
        return F.downsample(img, params['factor'], self.interpolation)


@TRANSFORMS.register_module()
class GaussianNoise(Corruption):
    """Denoising: add white Gaussian noise.

    Args:
        sigma: Standard deviation in pixel units (0 to 255); or the range from which it is drawn uniformly.
        seed: See ``Corruption``.
    """

    name = 'denoise'

    def __init__(self, sigma: float | tuple[float, float] = 50.0, seed: int | None = None):
        super().__init__(seed)
        self.sigma = self._range('sigma', sigma, lowest=0)

    def sample(self, shape: tuple[int, ...], rng: Generator) -> Params:
        """The noise, of the image's shape, in pixel units."""
        noise = normal_noise(shape, rng)
        noise *= np.float32(rng.uniform(*self.sigma))
        return dict(noise=noise)

    def apply(self, img: NDArray, params: Params) -> NDArray:
        """Add the noise."""
        return F.add_noise(img, params['noise'])


def normal_noise(shape: tuple[int, ...], rng: Generator) -> NDArray[np.float32]:
    """Standard normal noise with a resolution of 2**-16 in probability, so within +-4.33.

    NumPy's generator has no such limits, but takes as long as decoding a JPEG.
    """
    count = math.prod(shape)
    draws = rng.integers(2**64, size=math.ceil(count / 4), dtype=np.uint64).view(np.uint16)[:count]
    # The table has a value for every 16-bit number; 'clip' only avoids the check.
    return normal_quantiles().take(draws.reshape(shape), mode='clip')


@lru_cache
def normal_quantiles() -> NDArray[np.float32]:
    """Ascending medians (2**16,) of 2**16 equally likely slices of the standard normal distribution."""
    return torch.special.ndtri((torch.arange(2**16, dtype=torch.float64) + 0.5) / 2**16).float().numpy()


@TRANSFORMS.register_module()
class Grayscale(Corruption):
    """Colorization: replace every channel by the image's luma.

    Args:
        weights: One per channel, in the image's channel order. If not given: those of ITU-R BT.601 for three channels
            in MM's order, blue, green, red; the mean for any other number of channels.
        seed: Has no effect; nothing is drawn.
    """

    name = 'color'
    BT601_BGR = (0.114, 0.587, 0.299)

    def __init__(self, weights: Sequence[float] | None = None, seed: int | None = None):
        super().__init__(seed)
        if weights is not None:
            self._check(hasattr(weights, '__len__'), 'weights must be a list, one number per channel', weights)
        self.weights = weights

    def sample(self, shape: tuple[int, ...], rng: Generator) -> Params:
        """The weights (C,)."""
        channels = shape[2] if len(shape) == 3 else 1
        weights = self.weights
        if weights is None:
            weights = self.BT601_BGR if channels == 3 else [1 / channels] * channels
        self._check(len(weights) == channels, f'weights must be {channels} numbers, one per channel', weights)
        return dict(weights=np.asarray(weights, dtype=np.float32))

    def apply(self, img: NDArray, params: Params) -> NDArray:
        """Replace the channels by their weighted sum."""
        return F.to_gray(img, params['weights'])
