"""What the page shows, without the page: the descent of an image, its energies, and maps over it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from mmpretrain.registry import DATASETS
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from mmebm.apis import RestoredImage, Restorer
from mmebm.config_tree import nested_dicts
from mmebm.corruptions.base import Corruption
from mmebm.model_building import type_name
from mmebm.models.selfsup.ebm import EBMAlgorithm
from mmebm.pixels import PEAK
from mmebm.registry import TRANSFORMS
from mmebm.visualization.figures import to_picture
from mmebm.visualization.restoration_sheet import in_color

AS_GIVEN = 'none: the image as it is'
MAPS = ('|dE/dx| of pixels', 'energy of tokens', 'change so far')
MAX_MEGAPIXELS = 50.0
MIN_SIDE = 256  # pixels, to which small pictures are enlarged

Picture = NDArray[np.uint8]


@dataclass
class Descent:
    """An image on its way down the energy: K + 1 pictures (H, W, 3), their energies and maps (H, W) of each kind.

    ``energies`` is empty, and ``maps`` has only the last kind, if the model has no energy of whole images.
    """

    pictures: list[Picture]
    energies: list[float] = field(default_factory=list)
    clean: Picture | None = None
    maps: dict[str, list[NDArray[np.float32]]] = field(default_factory=dict)

    @property
    def num_steps(self) -> int:
        """K."""
        return len(self.pictures) - 1


class Explorer:
    """Answers the page.

    Args:
        restorer: Of a model that restores images.

    Raises:
        ValueError: The model restores none.

    Attributes:
        corruptions: Choices, the config's first; none but ``AS_GIVEN`` for a method that corrupts images itself.
        num_steps: K in training; None for such a method, which takes one step.
    """

    def __init__(self, restorer: Restorer) -> None:
        if 'restore' not in restorer.abilities:
            raise ValueError(f'{type(restorer.model).__name__} restores no images, so that there is nothing to show')
        self.restorer = restorer
        self.is_free = isinstance(restorer.model, EBMAlgorithm)
        names = restorer.corruptions
        others = [
            kind.__name__
            for kind in TRANSFORMS.module_dict.values()
            if issubclass(kind, Corruption) and getattr(kind, 'name', None) not in names
        ]
        self.corruptions = [*names, *sorted(others), AS_GIVEN] if self.is_free else [AS_GIVEN]
        self.num_steps: int | None = restorer.model.num_steps if self.is_free else None

    def descend(self, image: str, corruption: str, strength: float, num_steps: int) -> Descent:
        """Corrupt and restore an image.

        Args:
            image: Path of a file.
            corruption: One of ``corruptions``.
            strength: 0 to 1, from the clean image to the corrupted one.
            num_steps: K.

        Raises:
            OSError: The file is missing or damaged.
            ValueError: It is too large, or the corruption does not fit it.
        """
        check_size(image)
        if not self.is_free:
            (result,) = self.restorer.restore(image, progress=False)
        else:
            pair = None
            if corruption != AS_GIVEN:
                options = self.restorer.corruptions.get(corruption) or dict(type=f'mmebm.{corruption}')
                pair = dict(type='mmebm.CorruptedPair', corruption=options, strength=strength)
            (result,) = self.restorer.restore(image, pair, int(num_steps), progress=False)
        return self._descent(result)

    def _descent(self, result: RestoredImage) -> Descent:
        energies = result.energies.tolist() if self.is_free else []
        maps: dict[str, list[NDArray]] = {name: [] for name in MAPS}
        if self.is_free:
            for one in self.restorer.energy_of_results(result.images):
                maps[MAPS[0]].append(one.gradient.numpy())
                if one.token_energies is not None:
                    size = one.gradient.shape[::-1]
                    maps[MAPS[1]].append(cv2.resize(one.token_energies.numpy(), size, interpolation=cv2.INTER_NEAREST))
        maps[MAPS[2]] = [(image - result.images[0]).abs().mean(dim=0).numpy() for image in result.images]
        pictures = [in_color(picture) for picture in result.pictures]
        clean = None if result.clean is None else in_color(to_picture(result.clean))
        return Descent(pictures, energies, clean, {name: values for name, values in maps.items() if values})

    def examples(self, folder: Path | None, number: int = 12) -> list[str] | list[Picture]:
        """Images to pick from: files of a folder, or of the embedded data set if the model was trained on it.

        Raises:
            FileNotFoundError: The folder has no image.
        """
        if folder is not None:
            from mmebm.apis.sources import expand

            items, _ = expand(str(folder))
            return [item.image for _, item in zip(range(number), items, strict=False)]
        found = [node for _, node in nested_dicts(self.restorer.config._cfg_dict) if type_name(node) == 'Shapes']
        if not found:
            return []
        size = dict(image_size=found[0]['image_size']) if 'image_size' in found[0] else {}
        shapes = DATASETS.build(dict(type='mmebm.Shapes', size=number, split='val', pipeline=[], **size))
        return [shapes[index]['img'][..., ::-1] for index in range(number)]


def check_size(path: str) -> None:
    """Check the size of a picture before it is decoded; what cannot be read is left to the loader, which says why.

    Raises:
        ValueError: It has more than 50 megapixels.
    """
    try:
        with Image.open(path) as picture:
            megapixels = picture.width * picture.height / 1e6
    except Image.DecompressionBombError:
        megapixels = float('inf')
    except (OSError, SyntaxError, UnidentifiedImageError, ValueError):
        return
    if megapixels > MAX_MEGAPIXELS:
        raise ValueError(f'the image has more than {MAX_MEGAPIXELS:.0f} megapixels; make it smaller')


def shown(descent: Descent, step: int, kind: str | None = None, opacity: float = 0.0) -> Picture:
    """The picture of a step, with a map over it.

    Colours have the same scale at all steps of a descent.

    Args:
        descent: Of the image.
        step: 0 to K.
        kind: One of ``maps``; None, or one that the model lacks, for none.
        opacity: Of the map, 0 to 1.
    """
    picture = descent.pictures[min(step, descent.num_steps)]
    maps = descent.maps.get(kind or '')
    if maps and opacity > 0:
        low, high = min(map(np.min, maps)), max(map(np.max, maps))
        scaled = (maps[min(step, descent.num_steps)] - low) / (high - low or 1)
        colors = matplotlib.colormaps['inferno'](scaled)[..., :3] * PEAK
        picture = np.rint((1 - opacity) * picture + opacity * colors).astype(np.uint8)
    return enlarged(picture)


def enlarged(picture: Picture) -> Picture:
    """A picture of at least 256 pixels on its shorter side, each pixel a square."""
    factor = -(-MIN_SIDE // min(picture.shape[:2]))
    return picture.repeat(factor, axis=0).repeat(factor, axis=1) if factor > 1 else picture


def energy_curve(energies: Sequence[float], step: int) -> Figure:
    """Energies over the steps, with the present one marked."""
    figure = Figure(figsize=(5, 2.6), layout='constrained')
    axes = figure.subplots()
    axes.plot(range(len(energies)), energies, marker='o', markersize=4)
    axes.axvline(step, color='tab:orange')
    axes.set(xlabel='step', ylabel='energy')
    axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
