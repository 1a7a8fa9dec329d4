"""Defects and oddities to draw onto images (uint8, (H, W, 3), BGR), and figures of images that need no model."""

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray


def cut_and_paste(image: NDArray, other: NDArray, rng: Generator) -> tuple[NDArray, NDArray]:
    """The image with a rectangle of another one, a fifth to two fifths of its sides long, at another place.

    Returns:
        The image, and a mask (H, W) of the pixels that differ.
    """
    height, width = image.shape[:2]
    h, w = (int(size * rng.uniform(0.2, 0.4)) for size in (height, width))
    (y, x), (v, u) = ((rng.integers(height - h), rng.integers(width - w)) for _ in range(2))
    damaged = image.copy()
    damaged[y : y + h, x : x + w] = other[v : v + h, u : u + w]
    return damaged, (damaged != image).any(axis=2)


def noise(image: NDArray, other: NDArray, rng: Generator) -> tuple[NDArray, NDArray]:
    """The image with Gaussian noise of a standard deviation of 40 in an ellipse, a quarter of its sides wide."""
    height, width = image.shape[:2]
    centre = (int(rng.integers(width // 4, 3 * width // 4)), int(rng.integers(height // 4, 3 * height // 4)))
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, centre, (width // 8, height // 8), float(rng.uniform(0, 180)), 0, 360, 1, -1)
    noisy = np.clip(image + rng.normal(0, 40, image.shape), 0, 255).astype(np.uint8)
    return np.where(mask[..., None] > 0, noisy, image), mask > 0


DEFECTS = {'cut-and-paste': cut_and_paste, 'noise': noise}


def rotated(image: NDArray, rng: Generator) -> NDArray:
    """Turned by a quarter."""
    return np.ascontiguousarray(np.rot90(image))


def blurred(image: NDArray, rng: Generator) -> NDArray:
    """By a Gaussian, an eighth of the image wide."""
    return cv2.GaussianBlur(image, (0, 0), image.shape[0] / 16)


def blank(image: NDArray, rng: Generator) -> NDArray:
    """Of one colour."""
    return np.full_like(image, rng.integers(256, size=3))


def noisy(image: NDArray, rng: Generator) -> NDArray:
    """Gaussian noise of a standard deviation of 25 everywhere."""
    return np.clip(image + rng.normal(0, 25, image.shape), 0, 255).astype(np.uint8)


ODDITIES = dict(rotated=rotated, blurred=blurred, blank=blank, noise=noisy)


def png_size(image: NDArray) -> int:
    """Bytes of the image as PNG."""
    return len(cv2.imencode('.png', image)[1])


def variation(image: NDArray) -> NDArray:
    """Local total variation (H, W): absolute differences to the next row and column, mean over channels."""
    values = image.astype(np.float32)
    rows = np.abs(np.diff(values, axis=0, append=values[-1:]))
    columns = np.abs(np.diff(values, axis=1, append=values[:, -1:]))
    return (rows + columns).mean(axis=2)
