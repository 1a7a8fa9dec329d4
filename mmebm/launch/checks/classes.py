"""Checks that the data sets of a config number the same classes alike."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config

from mmebm.datasets.classes import check_same_classes
from mmebm.model_building import type_name


def check_classes(cfg: Config, sections: Sequence[str]) -> None:
    """Check that training and evaluation find the same folders of classes.

    mmpretrain numbers the folders of each data set separately.

    Args:
        cfg: The merged config. Data sets whose classes are listed in it or in a file are not looked at.
        sections: The top-level keys whose data sets are compared with those of training, such as ``val_dataloader``.

    Raises:
        ValueError: The folders differ.
    """
    train = class_folders(cfg, 'train_dataloader')
    for section in ('val_dataloader', 'test_dataloader'):
        other = class_folders(cfg, section) if section in sections else None
        if train and other:
            requirement = 'must have the same folders, one per class, since each numbers its own'
            check_same_classes(train[1], other[1], f'{train[0]} and {other[0]} {requirement}')


def class_folders(cfg: Config, section: str) -> tuple[Path, list[str]] | None:
    """A data set's folder, and the names of those in it if they are its classes."""
    dataset = (cfg.get(section) or {}).get('dataset') or {}
    by_default = type_name(dataset) == 'CustomDataset'
    if not dataset.get('with_label', by_default) and (dataset.get('metainfo') or {}).get('classes', ()) is not None:
        return None
    root, split = Path(dataset.get('data_root') or ''), dataset.get('split', '')
    prefix = dataset.get('data_prefix') or split
    folder = root / (prefix['img_path'] if isinstance(prefix, dict) else prefix)
    is_listed = dataset.get('ann_file') or (split and (root / 'meta' / f'{split}.txt').exists())
    if is_listed or not folder.is_dir():
        return None
    return folder, [path.name for path in folder.iterdir() if path.is_dir()]
