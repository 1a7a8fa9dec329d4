"""Writes :class:`mmebm.datasets.Shapes` as files, laid out as ImageNet, ADE20K or COCO."""

import json
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from mmebm.datasets.embedded.shapes import Picture, Shapes
from mmebm.output_files import check_new

CLASSES = Shapes.METAINFO['classes']


def write_shapes(out: Path, layout: str, train: int, val: int, image_size: int, seed: int = 0) -> str:
    """Write both splits into a folder.

    Args:
        out: The folder, new or empty.
        layout: One of ``LAYOUTS``.
        train: Number of training images.
        val: Number of validation images.
        image_size: Height and width in pixels.
        seed: Another one makes other images.

    Returns:
        How to read the files.

    Raises:
        FileExistsError: The folder is in use.
        ValueError: Shapes cannot be drawn so small, or in such a number.
    """
    check_new(out)
    datasets = [
        Shapes(size=size, image_size=image_size, split=split, seed=seed)
        for split, size in (('train', train), ('val', val))
    ]
    write, hint = LAYOUTS[layout]
    for dataset in datasets:
        write(out, dataset.split, numbered(dataset))
    return hint


def write_shapes_once(folder: Path, layout: str, train: int, val: int, image_size: int) -> None:
    """The same, unless the folder is there; what was interrupted is not taken for complete."""
    if folder.is_dir():
        return
    parts = folder.with_suffix('.part')
    shutil.rmtree(parts, ignore_errors=True)
    write_shapes(parts, layout, train, val, image_size)
    parts.rename(folder)


def write_imagenet(out: Path, split: str, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write ``<split>/<class>/<name>.png``."""
    for name, picture in pictures:
        _write(out / split / CLASSES[picture.gt_label] / f'{name}.png', picture.img)


def write_ade20k(out: Path, split: str, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write ``images/<folder>/<name>.jpg`` and label maps ``annotations/<folder>/<name>.png``.

    A label is 0 = background or 1 + class; mmseg's ``reduce_zero_label`` turns that into ignored and class.
    """
    folder = {'train': 'training', 'val': 'validation'}[split]
    for name, picture in pictures:
        _write(out / 'images' / folder / f'{name}.jpg', picture.img)
        _write(out / 'annotations' / folder / f'{name}.png', picture.gt_seg_map)


def write_coco(out: Path, split: str, pictures: Iterable[tuple[str, Picture]]) -> None:
    """Write ``<split>2017/<name>.jpg`` and ``annotations/instances_<split>2017.json``.

    Masks are uncompressed run lengths, since rings and hidden parts are no polygons. Category ids are 1 + class.
    """
    images, annotations = [], []
    for image_id, (name, picture) in enumerate(pictures, start=1):
        height, width = picture.gt_seg_map.shape
        images.append(dict(id=image_id, file_name=f'{name}.jpg', height=height, width=width))
        _write(out / f'{split}2017' / f'{name}.jpg', picture.img)
        for instance in picture.instances:
            x1, y1, x2, y2 = instance.bbox
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=instance.label + 1,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=int(instance.mask.sum()),
                    segmentation=dict(size=[height, width], counts=run_lengths(instance.mask)),
                    iscrowd=0,
                )
            )
    categories = [dict(id=i, name=name) for i, name in enumerate(CLASSES, start=1)]
    content = dict(images=images, annotations=annotations, categories=categories)
    path = out / 'annotations' / f'instances_{split}2017.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def run_lengths(mask: np.ndarray) -> list[int]:
    """Encode a bool mask (H, W) as COCO does: lengths of the runs down the columns, the first of them outside."""
    flat = mask.ravel(order='F').astype(np.int8)
    changes = np.diff(flat, prepend=0).nonzero()[0]  # a mask that starts inside gets a first run of length 0
    return np.diff(changes, prepend=0, append=flat.size).tolist()


LAYOUTS = {
    'imagenet': (
        write_imagenet,
        "Read it with type='mmebm.ImageFolder' (with_label=True) or 'mmpretrain.CustomDataset'.",
    ),
    'ade20k': (
        write_ade20k,
        "Set `data_root` of mmseg's ADE20K configs to this folder; for these classes alone use type='BaseSegDataset' "
        'with reduce_zero_label=True and metainfo=dict(classes=...).',
    ),
    'coco': (write_coco, "Set `data_root` of mmdet's COCO configs to this folder, and metainfo=dict(classes=...)."),
}


def numbered(dataset: Shapes) -> Iterator[tuple[str, Picture]]:
    """Name and picture of every image, while a bar shows how far it is."""
    for i in track(range(len(dataset)), description=f'Drawing {len(dataset)} {dataset.split} images'):
        yield f'{dataset.split}_{i:08d}', dataset.draw(i)


def _write(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), image):
        raise OSError(f'{path} could not be written; is the disk full?')
