"""Checks that a detection data set's annotations have every class that the config names."""

import json
from collections.abc import Iterator
from typing import Any

from mmengine.fileio import get_text

from mmebm.error_text import first_few


def check_categories(dataset: Any, place: str) -> None:
    """Check mmdet's COCO data sets within a data set; others pass.

    mmdet leaves out the classes that the annotations do not have and numbers the rest, so that the labels of all
    classes behind them would be those of others.

    Args:
        dataset: A built data set, or a wrapper of some.
        place: The dotted key of its config.

    Raises:
        ValueError: A class is missing among the categories of the annotations.
    """
    for part in coco_parts(dataset):
        names = part.metainfo.get('classes') or ()
        if len(part.cat_ids) == len(names):
            continue
        text = get_text(part.ann_file, backend_args=part.backend_args)
        found = [category['name'] for category in json.loads(text).get('categories', [])]
        missing = [name for name in names if name not in found]
        if missing:
            raise ValueError(
                f'{part.ann_file} has no category {first_few(missing)}, which metainfo.classes of {place} names, but '
                f'{first_few(found)}. Set metainfo.classes of every data set, and num_classes of the model, to those'
            )


def coco_parts(dataset: Any) -> Iterator[Any]:
    """The COCO data sets of mmdet within a data set, at any depth of wrappers, once they are loaded."""
    if hasattr(type(dataset), 'COCOAPI'):
        if hasattr(dataset, 'cat_ids'):
            yield dataset
        return
    inner = getattr(dataset, 'dataset', None)
    for part in getattr(dataset, 'datasets', [] if inner is None else [inner]):
        yield from coco_parts(part)
