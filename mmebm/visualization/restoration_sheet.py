"""Sheets of restorations: a row per image, a column per picture of it, and how to take them apart again."""

from collections.abc import Sequence

import matplotlib
import numpy as np
from mmpretrain.structures import DataSample
from numpy.typing import NDArray
from torch import Tensor

from mmebm.pixels import PEAK, PICTURES
from mmebm.visualization.figures import to_picture

Picture = NDArray[np.uint8]

ERROR = 'error'
ERROR_PEAK = PEAK / 2  # the error, in pixel units, of the brightest colour: the same in every sheet
MAX_STEPS = 4
GAP = 2  # pixels between tiles


def pictures_of(sample: DataSample, steps: Sequence[Tensor] = ()) -> dict[str, Picture]:
    """The pictures of a prediction by name, from left to right, each (H, W, 3).

    Args:
        sample: Predicted; images are (C, H, W) in pixel units. What it lacks is left out.
        steps: The images between the corrupted and the restored one, likewise; at most four are shown.
    """
    shown = {name: in_color(to_picture(sample.get(name))) for name in PICTURES if name in sample}
    chosen = sorted(set(np.linspace(0, len(steps) - 1, MAX_STEPS).round().astype(int))) if steps else []
    between = {f'step {index + 1}': in_color(to_picture(steps[index])) for index in chosen}
    restored = shown.pop('restored', None)
    shown |= between
    if restored is not None:
        shown['restored'] = restored
        if 'clean' in sample:
            shown[ERROR] = error_map(sample.restored, sample.clean)
    return shown


def error_map(restored: Tensor, clean: Tensor) -> Picture:
    """Mean absolute error over channels of images (C, H, W) in pixel units, in colours, (H, W, 3)."""
    error = (restored.float() - clean.float()).abs().mean(dim=0).cpu().numpy()
    return (matplotlib.colormaps['magma'](np.clip(error / ERROR_PEAK, 0, 1))[..., :3] * PEAK).round().astype(np.uint8)


def in_color(picture: Picture) -> Picture:
    """A picture (H, W, 3) of one that may be grey, (H, W)."""
    return np.dstack([picture] * 3) if picture.ndim == 2 else picture


def compose(rows: Sequence[dict[str, Picture]]) -> Picture:
    """One sheet of the pictures of several images, which have the same names and size."""
    return _joined([_joined(list(row.values()), axis=1) for row in rows], axis=0)


def take_apart(sheet: Picture, num_rows: int, columns: Sequence[str]) -> list[dict[str, Picture]]:
    """What ``compose`` has put together, for each image by name."""
    height = (sheet.shape[0] + GAP) // num_rows
    width = (sheet.shape[1] + GAP) // len(columns)
    return [
        {
            name: sheet[row * height : (row + 1) * height - GAP, column * width : (column + 1) * width - GAP]
            for column, name in enumerate(columns)
        }
        for row in range(num_rows)
    ]


def _joined(pictures: Sequence[Picture], axis: int) -> Picture:
    padding = [(0, 0)] * 3
    padding[axis] = (0, GAP)
    return np.concatenate(
        [*(np.pad(picture, padding, constant_values=255) for picture in pictures[:-1]), pictures[-1]], axis=axis
    )
