"""Where the data sets of a config read their labels, and checks of lists of labels."""

import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmpretrain.datasets import CustomDataset

from mmebm.datasets import HFImages, TarShards
from mmebm.datasets.packed.arrow_index import read_classes
from mmebm.datasets.packed.shards import read_about
from mmebm.launch.checks.class_counts import check_largest_label, class_counts
from mmebm.model_building import class_of
from mmebm.registry import DATASETS


def data_sets(dataset: Any, place: str) -> Iterator[tuple[str, dict]]:
    """The data sets in a data set's config, those in wrappers such as ``ConcatDataset``, with their dotted keys."""
    if not isinstance(dataset, dict):
        return
    inner = [(f'{place}.datasets.{i}', child) for i, child in enumerate(dataset.get('datasets') or [])]
    if 'dataset' in dataset:
        inner.append((f'{place}.dataset', dataset['dataset']))
    if not inner:
        yield place, dataset
    for child_place, child in inner:
        yield from data_sets(child, child_place)


def has_labels(dataset: dict, kind: type | None) -> bool:
    """Whether a data set reads labels from folders or from a list, as mmpretrain's ``CustomDataset`` does."""
    if not (isinstance(kind, type) and issubclass(kind, CustomDataset)):
        return False
    signatures = (inspect.signature(base.__init__).parameters for base in kind.__mro__)
    by_default = next(parameters['with_label'].default for parameters in signatures if 'with_label' in parameters)
    return dataset.get('with_label', by_default) and dataset.get('split') != 'test'


def list_of_labels(dataset: dict, kind: type | None) -> Path | None:
    """The file that lists a data set's images with their labels; None if there is none."""
    if not has_labels(dataset, kind):
        return None
    root, split = Path(dataset.get('data_root') or ''), dataset.get('split')
    if dataset.get('ann_file'):
        return root / dataset['ann_file']
    file = root / 'meta' / f'{split}.txt'
    return file if split and file.is_file() else None


def folder_of_classes(dataset: dict, kind: type | None) -> Path | None:
    """The folder whose subfolders are a data set's classes; None if it has none, or if a file lists its labels."""
    if not has_labels(dataset, kind) or list_of_labels(dataset, kind):
        return None
    prefix = dataset.get('data_prefix') or dataset.get('split', '')
    folder = Path(dataset.get('data_root') or '', prefix['img_path'] if isinstance(prefix, dict) else prefix)
    return folder if folder.is_dir() else None


def _is_labelled(dataset: dict, kind: type | None, expected: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, expected) and bool(dataset.get('with_label'))


def packed_classes(dataset: dict, kind: type | None) -> list[str] | None:
    """The classes of a data set of shards, as their index names them; None if it is another, or without labels."""
    if not _is_labelled(dataset, kind, TarShards):
        return None
    return read_about(dataset.get('data_root') or '')['classes']


def noted_classes(dataset: dict, kind: type | None) -> list[str] | None:
    """The classes of a HuggingFace data set, as its files name them; None if they do not, or if it is another."""
    if not _is_labelled(dataset, kind, HFImages):
        return None
    return read_classes(*(dataset.get(option) or '' for option in ('data_root', 'split', 'label_column')))


def check_label_lists(cfg: Config, sections: Sequence[str]) -> None:
    """Check that the model has a class for every label in the lists of data sets.

    Args:
        cfg: The merged config.
        sections: The top-level keys of the data sets.

    Raises:
        ValueError: It has not, or a line has no label.
    """
    for section in sections if any(class_counts(cfg)) else ():
        for _, dataset in data_sets((cfg.get(section) or {}).get('dataset'), section):
            kind = class_of(dataset, DATASETS, cfg.get('default_scope'))
            if _is_labelled(dataset, kind, HFImages) and not noted_classes(dataset, kind):
                options = {key: dataset[key] for key in ('data_root', 'split', 'image_column', 'label_column')
                           if key in dataset}  # fmt: skip
                largest = int(HFImages(**options, with_label=True).get_gt_labels().max())
                check_largest_label(cfg, str(dataset.get('data_root')), largest)
                continue
            file = list_of_labels(dataset, kind)
            lines = file.read_text().splitlines() if file and file.is_file() else []
            labels = [line.strip().rpartition(' ')[2] for line in lines]
            wrong = next((i for i, label in enumerate(labels) if not label.isdecimal()), None)
            if wrong is not None:
                raise ValueError(f'{file}: line {wrong + 1} must be a path, a blank and a label, not {lines[wrong]!r}')
            if labels:
                check_largest_label(cfg, str(file), max(map(int, labels)))
