"""How many images a training set has: counted where its files are, else as its name tells."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmpretrain.datasets import CustomDataset

from mmebm.datasets.packed.base import PackedImages
from mmebm.model_building import class_of, type_name
from mmebm.planning.config_facts import known_length
from mmebm.registry import DATASETS


class Length(NamedTuple):
    """A number of images, None if it is not known, and where it is from."""

    images: int | None
    source: str


def length_of(dataset: Mapping[str, Any], scope: str | None = None) -> Length:
    """Count a data set's images if its folder or list is here; else go by its name.

    Args:
        dataset: Its config.
        scope: In which its type is meant.

    Raises:
        FileNotFoundError: The folder is here, but holds no image.
        ValueError: The folder does not fit the data set's options.
    """
    if type_name(dataset) == 'RepeatDataset':
        images, source = length_of(dataset['dataset'], scope)
        return Length(images and images * dataset['times'], f'{dataset["times"]} times what is {source}')
    if type_name(dataset) == 'ConcatDataset':
        numbers, sources = zip(*(length_of(part, scope) for part in dataset['datasets']), strict=True)
        return Length(None if None in numbers else sum(numbers), '; '.join(dict.fromkeys(sources)))
    kind = class_of(dataset, DATASETS, scope)
    is_packed = isinstance(kind, type) and issubclass(kind, PackedImages)
    files = Path(dataset.get('data_root') or '') if is_packed else files_of(dataset)
    if (is_packed or isinstance(kind, type) and issubclass(kind, CustomDataset)) and files.exists():
        try:
            images = len(DATASETS.build(dict(dataset, type=kind, pipeline=[], lazy_init=False)))
        except AssertionError as error:  # mmpretrain's way to say so
            raise ValueError(f'{files}: {error}') from error
        return Length(images, f'counted in {files}')
    by_name = f'by its name; {files} is not here' if dataset.get('data_root') else 'by its type'
    return Length(known_length(dataset), by_name)


def files_of(dataset: Mapping[str, Any]) -> Path:
    """The file or the folder that a data set of mmpretrain's is read from."""
    root = Path(dataset.get('data_root') or '')
    if dataset.get('ann_file'):
        return root / dataset['ann_file']
    prefix = dataset.get('data_prefix') or dataset.get('split', '')
    return root / (prefix['img_path'] if isinstance(prefix, Mapping) else prefix)
