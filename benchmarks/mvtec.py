"""Reads a category in the layout of MVTec AD.

CATEGORY/train/good/*.png
CATEGORY/test/good/*.png
CATEGORY/test/DEFECT/NAME.png
CATEGORY/ground_truth/DEFECT/NAME_mask.png    above 127: defect
"""

from pathlib import Path
from typing import NamedTuple

from mmebm.datasets.listing import EXTENSIONS


class Category(NamedTuple):
    """Files of a category: images without a defect, and by defect those that have one, each with its mask."""

    normal: list[Path]
    good: list[Path]
    defects: dict[str, list[tuple[Path, Path]]]


def read_category(folder: Path) -> Category:
    """List a category.

    Raises:
        FileNotFoundError: A folder or a mask is missing, or a folder holds no images.
    """
    normal, good = (images_of(folder / split / 'good') for split in ('train', 'test'))
    defects = {}
    for kind in sorted(path.name for path in (folder / 'test').iterdir() if path.is_dir() and path.name != 'good'):
        masks = {path.stem.removesuffix('_mask'): path for path in images_of(folder / 'ground_truth' / kind)}
        images = images_of(folder / 'test' / kind)
        for image in images:
            if image.stem not in masks:
                raise FileNotFoundError(f'{image} has no mask {folder}/ground_truth/{kind}/{image.stem}_mask.png')
        defects[kind] = [(image, masks[image.stem]) for image in images]
    if not defects:
        raise FileNotFoundError(f'{folder}/test has no folder of a defect beside good/')
    return Category(normal, good, defects)


def images_of(folder: Path) -> list[Path]:
    """The images in a folder, in order of their names."""
    found = sorted(path for path in folder.glob('*') if path.suffix.lower() in EXTENSIONS)
    if not found:
        raise FileNotFoundError(f'{folder}: no images; a category has train/good, test/good, test/DEFECT, ground_truth')
    return found
