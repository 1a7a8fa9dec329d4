"""Corruptions as pure functions of an image and of parameters drawn before.

Images are arrays (H, W, C) or (H, W), uint8 or floating point in pixel units (0 to 255), as
``mmebm.pixels`` makes them of other types. Nothing is changed in place;
the result has the image's dtype, and uint8 results are rounded and clipped.

They run on the CPU for every image of every epoch: ``benchmarks/pipeline.py`` compares their time with decoding.
"""

import math

import cv2
import numpy as np
from numpy.typing import NDArray

INTERPOLATIONS = {
    'nearest': cv2.INTER_NEAREST,
    'bilinear': cv2.INTER_LINEAR,
    'bicubic': cv2.INTER_CUBIC,
    'lanczos': cv2.INTER_LANCZOS4,
    'area': cv2.INTER_AREA,
}


def mask_patches(img: NDArray, mask: NDArray[np.bool_], fill: NDArray) -> NDArray:
    """Replace the masked patches by ``fill``.

    Args:
        img: (H, W[, C]).
        mask: One value per patch, (rows, columns), True = masked; rows divide H and columns divide W.
        fill: Pixel values that broadcast against the image: a colour (C,) or another image.
    """
    height, row = img.shape[0] // mask.shape[0], img[0].size // mask.shape[1]
    hidden = mask.repeat(row, axis=1).repeat(height, axis=0).reshape(img.shape)
    # Expanded to every channel and at least one row: broadcasting takes NumPy four times as long.
    fill = np.broadcast_to(as_type_of(img, fill), np.broadcast_shapes(np.shape(fill), img.shape[1:]))
    return np.where(hidden, np.ascontiguousarray(fill), img)


def visible_mean(img: NDArray, mask: NDArray[np.bool_]) -> NDArray:
    """Mean colour (C,) of the visible patches of an image (H, W[, C]), or of the whole image if all are masked."""
    patches = patchify(img, img.shape[0] // mask.shape[0], img.shape[1] // mask.shape[1])
    visible = patches if mask.all() else patches[~mask.reshape(-1)]
    total = visible.sum(axis=0, dtype=np.float32 if img.dtype == np.float16 else None)
    return total.sum(axis=(0, 1)) / math.prod(visible.shape[:3])  # mean() takes six times as long


def shuffle_patches(img: NDArray, order: NDArray[np.integer], patch_size: int) -> NDArray:
    """Move patch ``order[i]`` to position i; patches are squares of ``patch_size`` pixels, numbered row by row."""
    patches = patchify(img, patch_size, patch_size)[order]
    rows, columns = img.shape[0] // patch_size, img.shape[1] // patch_size
    grid = patches.reshape(rows, columns, patch_size, patch_size, *img.shape[2:])
    return np.ascontiguousarray(grid.swapaxes(1, 2)).reshape(img.shape)


def patchify(img: NDArray, height: int, width: int) -> NDArray:
    """Patches (rows * columns, height, width[, C]) that tile an image (H, W[, C]), row by row."""
    rows, columns = img.shape[0] // height, img.shape[1] // width
    grid = img.reshape(rows, height, columns, width, *img.shape[2:]).swapaxes(1, 2)
    return grid.reshape(rows * columns, height, width, *img.shape[2:])


def downsample(img: NDArray, factor: float, interpolation: str) -> NDArray:
    """Shrink both sides by ``factor`` >= 1 by area averaging, and enlarge to full size with ``interpolation``."""
    height, width = img.shape[:2]
    small = max(1, round(width / factor)), max(1, round(height / factor))
    values = img.astype(np.float32)
    # OpenCV interpolates up to four channels at once.
    planes = values.reshape(height, width, -1)
    groups = [np.ascontiguousarray(planes[..., i : i + 4]) for i in range(0, planes.shape[2], 4)]
    resized = [
        cv2.resize(cv2.resize(group, small, interpolation=cv2.INTER_AREA), (width, height),
                   interpolation=INTERPOLATIONS[interpolation]).reshape(group.shape)
        for group in groups
    ]  # fmt: skip
    return as_type_of(img, np.concatenate(resized, axis=2).reshape(img.shape))


def add_noise(img: NDArray, noise: NDArray) -> NDArray:
    """Add noise of the image's shape, in pixel units."""
    return as_type_of(img, img.astype(np.float32) + noise)


def to_gray(img: NDArray, weights: NDArray) -> NDArray:
    """Replace every channel by the weighted sum of all, with weights (C,) in the image's channel order."""
    gray = img.reshape(*img.shape[:2], -1).astype(np.float32) @ np.asarray(weights, dtype=np.float32)
    return cv2.merge([as_type_of(img, gray)] * weights.size).reshape(img.shape)


def as_type_of(img: NDArray, values: NDArray) -> NDArray:
    """Values in the image's dtype; rounded and clipped to its range if it is an integer type, or of 0 and 1."""
    values = np.asarray(values)
    if img.dtype == np.bool_ and values.dtype != img.dtype:
        return values >= 0.5
    if np.issubdtype(img.dtype, np.integer) and values.dtype != img.dtype:
        limits = np.iinfo(img.dtype)
        # For uint8, rint returns float16, whose maximum is 65504.
        rounded = np.asarray(np.rint(values, dtype=np.result_type(values, np.float32)))
        values = np.clip(rounded, limits.min, limits.max, out=rounded)
    return values.astype(img.dtype, copy=False)


def contiguous(img: NDArray) -> NDArray:
    """The image in C order; the same array if it already is."""
    if img.strides[1] < 0 and img.dtype in (np.uint8, np.float32):
        # A flip leaves a view; NumPy would copy it pixel by pixel, which takes 30 times as long.
        return cv2.flip(img[:, ::-1], 1).reshape(img.shape)
    return np.ascontiguousarray(img)
