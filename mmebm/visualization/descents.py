"""Restorations step by step: a picture of all steps, or an animation of the descent."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmebm.pixels import PEAK
from mmebm.visualization.figures import to_picture

# Small images are enlarged by a whole number, to be seen.
SHORTEST_SIDE = 128

# Of each step, and of the last one.
MILLISECONDS, PAUSE = 200, 1500


class Descent(Protocol):
    """What is drawn: a ``RestoredImage``."""

    source: str
    images: Tensor
    energies: Tensor | None
    clean: Tensor | None

    @property
    def pictures(self) -> list[NDArray]:
        """The steps, as arrays."""


def draw_steps(descents: Sequence[Descent], path: Path) -> None:
    """Draw a row for each image: clean if it was corrupted, then all steps, with their energies."""
    rows = [_row(descent) for descent in descents]
    columns = max(map(len, rows))
    figure = Figure(figsize=(1.6 * columns + 0.2, 2.0 * len(rows)), layout='constrained')
    axes = figure.subplots(len(rows), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis('off')
    for row, line in zip(rows, axes, strict=True):
        for (title, picture), axis in zip(row, line, strict=False):
            axis.imshow(picture, cmap='gray', vmin=0, vmax=PEAK, interpolation='nearest')
            axis.set_title(title, fontsize=8)
    figure.savefig(path, dpi=120)


def animate(descents: Sequence[Descent], path: Path) -> None:
    """Write an animated WebP: clean, corrupted and the present step, a row for each image."""
    columns = [_columns(descent) for descent in descents]
    frames = [Image.fromarray(np.concatenate([one[k] for one in columns])) for k in range(len(columns[0]))]
    durations = [MILLISECONDS] * (len(frames) - 1) + [PAUSE]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, loop=0, lossless=True)


def _row(descent: Descent) -> list[tuple[str, NDArray]]:
    clean = [] if descent.clean is None else [('clean', to_picture(descent.clean))]
    energies = [''] * len(descent.images) if descent.energies is None else [f'\nE = {e:.4g}' for e in descent.energies]
    last = len(energies) - 1
    names = {0: 'corrupted' if clean else 'as given', last: 'restored'}
    steps = [(f'{names.get(k, f"step {k}")}{energy}', descent.pictures[k]) for k, energy in enumerate(energies)]
    return clean + steps


def _columns(descent: Descent) -> list[NDArray]:
    """The frames of one image."""
    pictures = [_enlarged(picture) for picture in descent.pictures]
    still = [pictures[0]] if descent.clean is None else [_enlarged(to_picture(descent.clean)), pictures[0]]
    return [np.concatenate([*still, picture], axis=1) for picture in pictures]


def _enlarged(picture: NDArray) -> NDArray:
    factor = -(-SHORTEST_SIDE // min(picture.shape[:2]))
    picture = picture.repeat(factor, axis=0).repeat(factor, axis=1)
    return picture if picture.ndim == 3 else np.stack([picture] * 3, axis=2)
